"""A chain bound to the leaves that it steps, and how a call is checked and run."""
