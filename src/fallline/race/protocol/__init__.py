"""How a race goes: what was asked for, every run over all processes, and the times at the end."""
