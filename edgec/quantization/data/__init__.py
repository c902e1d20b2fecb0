"""What a user gives: samples, the recipe that reads them, and labels."""
