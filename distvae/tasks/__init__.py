"""What a trained model is for: judging it, hearing it, and taking its codes elsewhere."""
