//! The cloud energy model.
