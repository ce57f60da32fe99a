"""What people ask of servers, and how it becomes what serving/ answers."""
