//! What checks Althing from outside: a simulator, checkers, real peers.

pub mod sim;
