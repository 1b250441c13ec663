"""How datasets lie in folders: from a folder to cases."""
