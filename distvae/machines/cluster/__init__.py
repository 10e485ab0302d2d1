"""The machines of a Ray cluster: what they have, and whether they answer."""
