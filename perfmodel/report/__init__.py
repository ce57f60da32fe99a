"""What people and programs see: tables for a terminal, documents for --json. No numbers are made here."""
