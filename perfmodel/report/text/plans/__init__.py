"""Plans, their odds and their money as text."""
