"""What operators and agents reach on the management port."""
