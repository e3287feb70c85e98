"""The same three routes as other people would write them."""
