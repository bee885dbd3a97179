"""Protocols that clients know already: OpenAI's, and those of users. Nothing outside of this folder knows one of them."""
