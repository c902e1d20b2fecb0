"""What the user sees: tables and progress in the terminal, what a model or bundle holds, what is installed here."""
