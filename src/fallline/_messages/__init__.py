"""Text that people read: values in one line, remedies, suggestions for names. Nothing else of fallline is needed."""
