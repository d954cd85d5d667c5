"""What a sample of the training data says about members: Fisher information, products of activations, best weights."""
