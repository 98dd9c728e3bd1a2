"""What shows a document: the table in a terminal, a notebook and a page, and the files of a result."""
