"""What people type or pass about plans, scenarios and sweeps, and how it becomes what the rooms below answer."""
