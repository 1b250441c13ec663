"""What networks and optimisers compute with: the operations, for a CPU in C++, and the precision inside them."""
