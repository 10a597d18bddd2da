"""Who is who? The identity graph and its membership in time, and the golden profiles made of it."""
