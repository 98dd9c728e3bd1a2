"""Text that people read: values in one line, remedies, suggestions for names, warnings. Nothing else of fallline is
needed, but for an error the names of its dialects."""
