"""The language of formulas: words, rules and their hyper-parameters, and what a chain of them is traced into."""
