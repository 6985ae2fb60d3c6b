//! stub
#![allow(missing_docs)]
use std::sync::Arc; use bytes::Bytes;
use crate::{apply::Reply, chain::*, types::*, state::State, watch::Ring};
pub struct Shared{pub state: State, pub ring: Ring}
#[derive(Clone)] pub struct Handle(Arc<Genesis>);
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeError { NoLeader, Timeout, TimeoutLeaderFail, Stopped, TooManyRequests, TooLarge, Corrupt }
#[derive(Clone)] pub struct CoreStatus{pub epoch: Epoch, pub view: View, pub primary: Option<ReplicaId>, pub has_leader: bool, pub committed: Height, pub executed: Height}
#[derive(Clone)] pub struct NodeStatus{pub core: CoreStatus, pub logical_bytes: u64, pub quarantined: Option<String>, pub log_bytes: u64}
impl Handle {
 pub async fn propose(&self,_:Author,_:Op,_:Vec<Bytes>)->Result<Reply,NodeError>{todo!()}
 pub async fn linearizable(&self)->Result<(),NodeError>{todo!()}
 pub fn read<R>(&self,_f:impl FnOnce(&Shared)->R)->R{todo!()}
 pub fn values(&self)->Arc<dyn ValueSource>{todo!()}
 pub fn applied(&self)->tokio::sync::watch::Receiver<i64>{todo!()}
 pub fn status(&self)->NodeStatus{todo!()}
 pub fn genesis(&self)->&Genesis{&self.0}
 pub fn view(&self)->(Epoch,View){todo!()}
 pub fn own(&self)->ReplicaId{todo!()}
}
