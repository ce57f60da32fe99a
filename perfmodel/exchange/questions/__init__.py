"""What people type about variations and plans, read into what the rooms below answer."""
