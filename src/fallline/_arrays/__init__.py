"""Trees and their leaves, of any library: structure and paths, dtypes, memory."""
