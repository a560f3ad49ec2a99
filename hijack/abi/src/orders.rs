//! What a restarting process tells the restorer.
