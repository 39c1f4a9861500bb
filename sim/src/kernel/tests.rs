//! Tests of the whole world are with the client model.
