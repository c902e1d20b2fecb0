"""What the Hugging Face frontend is made of: shapes of inputs, parts of models, processors, loading."""
