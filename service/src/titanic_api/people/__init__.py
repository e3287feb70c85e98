"""The passengers: what a person is, how they are kept, and what HTTP makes of them."""
