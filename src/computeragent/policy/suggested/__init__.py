"""What suggestions are made of: what calls need, the places that they use, and rules as text."""
