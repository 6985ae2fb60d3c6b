//! What must hold after every step, one file each, written anew: no checker calls a predicate of the code
//! it judges.

pub mod agreement;
pub mod fences;
pub mod members;
pub mod model;
pub mod requests;
pub mod users;
pub mod verifier;
pub mod votes;
pub mod watch;
