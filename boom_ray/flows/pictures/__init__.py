"""Pictures that several flows draw."""
