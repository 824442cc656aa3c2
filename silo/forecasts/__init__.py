"""What a plan will cost before anything is touched: epsilon, bytes, minutes on this machine."""
