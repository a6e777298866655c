//! The user's own SSH configuration.
