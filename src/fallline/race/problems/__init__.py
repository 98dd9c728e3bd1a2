"""What is minimised: a problem, its gradient checked, those that the race brings along, and how a user names one."""
