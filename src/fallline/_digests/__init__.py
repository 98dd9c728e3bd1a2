"""The same bits, shown: what every rule comes to on the same numbers, as hashes, beside those of a table.

`fallline digests` compares; `python -m reliability digests`, in the repository, writes the table anew.
"""
