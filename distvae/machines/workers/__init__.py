"""Workers of a training under Ray Train, and their driver."""
