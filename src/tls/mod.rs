//! stub
#![allow(missing_docs)]
#[derive(Clone, Debug)]
pub struct ClientIdentity{pub common_name: Option<String>}
