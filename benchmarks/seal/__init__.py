"""SEAL's protocol (arXiv 2506.10943) on its own data, by the product's own stages of dreaming; see docs/seal.md."""
