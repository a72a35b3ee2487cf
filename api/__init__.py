"""The HTTP gateway. It never loads a tensor library."""
