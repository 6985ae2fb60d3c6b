//! What a replica's shell does, in simulated time: feeds the core, carries out what it asks for, and shows
//! every step to the checkers.

use althing::apply::{OpError, Reply};
use althing::chain::{BlockHeader, Op, Range, Record, ValueSource};
use althing::codec::{Decode, Encode};
use althing::ordering::{
    Alarm, Input, Message, Mode, Output, PAGE_BYTES_MAX, Recipients, ShownVotes, Standing,
};
use althing::types::{Height, LogPosition, Millis, OrgId, ReplicaId};
use bytes::Bytes;

use crate::sim::checkers::requests::OpenRead;
use crate::sim::checkpoint::Checkpointing;
use crate::sim::disk::Survivors;
use crate::sim::liars::{Frame, Liar, Lie};
use crate::sim::node::{Lost, Waiting};
use crate::sim::plan::{MILLI, Micros, Mutant, SECOND};
use crate::sim::workload::{Known, Numbers};
use crate::sim::world::{Event, Local, World};

/// How long a client waits.
const PATIENCE_MS: u64 = 7_000;
/// How often the core is told the wall clock; in between it counts on.
const WALL_EVERY_MS: u64 = 50;
/// Most ops of one replica under way.
const OPEN_MAX: usize = 300;

impl World {
    fn wall_ms(&self, slot: usize) -> u64 {
        let true_ms = 1_790_000_000_000 + self.now / MILLI;
        let true_ms = match self.bent.get(&self.nodes[slot].identity.id) {
            Some(liar) => liar.clock(true_ms),
            None => true_ms,
        };
        true_ms.saturating_add_signed(self.nodes[slot].skew_ms)
    }

    /// One input for a core, and everything that follows from it at once.
    pub(super) fn step(&mut self, slot: usize, input: Input) -> Result<(), String> {
        let (now, wall) = (self.now, self.wall_ms(slot));
        if self.bent.get(&self.nodes[slot].identity.id).is_some_and(Liar::misreads_clock) {
            self.count(Lie::BadClock.counter());
        }
        let mono_ms = self.nodes[slot].mono_ms(now);
        let Some(life) = &mut self.nodes[slot].life else { return Ok(()) };
        let mut out = Vec::new();
        if life.clocks.0 != mono_ms {
            life.clocks.0 = mono_ms;
            life.core.step(Input::Tick { mono_ms }, &mut out);
        }
        if now / MILLI >= life.clocks.1 + WALL_EVERY_MS {
            life.clocks.1 = now / MILLI;
            life.core.step(Input::Wall { unix_ms: Millis(wall) }, &mut out);
        }
        if !matches!(input, Input::Tick { .. }) {
            life.core.step(input, &mut out);
        }
        if self.plan.mutant == Some(Mutant::Ungated) {
            let appended = out.iter().rev().find_map(|output| match output {
                Output::Append { position, .. } => Some(*position),
                _ => None,
            });
            if let Some(position) = appended {
                life.core.step(Input::Durable { position }, &mut out);
            }
        }
        for output in out {
            self.output(slot, output)?;
        }
        self.settle(slot)
    }

    /// After a step: marks only rise, the log thread is kept busy, the next tick is set.
    fn settle(&mut self, slot: usize) -> Result<(), String> {
        let Some(life) = &mut self.nodes[slot].life else { return Ok(()) };
        let status = life.core.status();
        let shown = ((status.epoch, status.view), status.committed, status.executed);
        let fell = shown.0 < life.shown.0 || shown.1 < life.shown.1 || shown.2 < life.shown.2;
        if fell || status.executed > status.committed {
            return Err(format!("{slot} shows {shown:?} after {:?}", life.shown));
        }
        let new_view = shown.0 > life.shown.0;
        let elsewhere = shown.1 > life.shown.1 && status.mode == Mode::ViewChange;
        life.shown = shown;
        let batch = if life.batch.is_none() { life.appender.take_batch() } else { None };
        let begun = batch.is_some();
        life.batch = life.batch.take().or(batch);
        let deadline = life.core.next_deadline();
        let deadline = deadline.map(|ms| self.nodes[slot].when(ms));
        let Some(life) = &mut self.nodes[slot].life else { return Ok(()) };
        let wanted = deadline.map(|at| at.max(self.now + MILLI));
        let sooner = wanted.filter(|at| life.tick_at.is_none_or(|set| *at < set));
        life.tick_at = sooner.or(life.tick_at);
        let number = life.number;
        if let Some(at) = sooner {
            self.schedule_at(at, Event::Local { slot, life: number, what: Local::Tick });
        }
        if begun {
            let delay = self.sync_time();
            self.schedule_local(slot, delay, Local::Synced);
        }
        if new_view {
            self.count("view left");
        }
        if elsewhere {
            self.count("committed in a view change");
        }
        Ok(())
    }

    fn sync_time(&mut self) -> Micros {
        let slow = self.healed_at.is_none() && self.random.chance(self.plan.sync_slow);
        if slow {
            self.count("slow sync");
        }
        let most = if slow { 300 * MILLI } else { self.plan.sync_max };
        self.random.between(100, most.max(100))
    }

    pub(super) fn tick(&mut self, slot: usize) -> Result<(), String> {
        let Some(life) = &mut self.nodes[slot].life else { return Ok(()) };
        life.tick_at = None;
        self.step(slot, Input::Tick { mono_ms: 0 })
    }

    fn output(&mut self, slot: usize, output: Output) -> Result<(), String> {
        let id = self.nodes[slot].identity.id;
        let honest = self.honest(slot);
        match output {
            Output::Append { position, record } => self.append(slot, position, &record),
            Output::Send { to, message, gate } => {
                if honest {
                    if matches!(self.nodes[slot].lost, Lost::Wiped | Lost::Fenced) {
                        self.fences.lost_sends(id, &message)?;
                    }
                    self.fences.sent(id, &message)?;
                }
                let Some(life) = &mut self.nodes[slot].life else { return Ok(()) };
                if gate > life.durable && self.plan.mutant != Some(Mutant::Ungated) {
                    life.waiting.push(Waiting { gate, to, message });
                    return Ok(());
                }
                self.transmit(slot, to, &message)
            }
            Output::Execute { block } => {
                let Some(life) = &mut self.nodes[slot].life else { return Ok(()) };
                life.to_execute.push_back(block);
                if life.to_execute.len() == 1 {
                    self.execute_next(slot);
                }
                Ok(())
            }
            Output::ReadReady { id, height } => {
                let Some(life) = &mut self.nodes[slot].life else { return Ok(()) };
                life.ready.push((id, height));
                self.answer_reads(slot)
            }
            Output::ReadFailed { id } => {
                let Some(life) = &mut self.nodes[slot].life else { return Ok(()) };
                life.reads.remove(&id);
                self.count("read failed");
                Ok(())
            }
            Output::ServeBlocks { to, from, until, instead } => {
                let answer = self.serve(slot, (from, until), instead.map(|message| *message))?;
                answer.map_or(Ok(()), |message| self.transmit(slot, Recipients::One(to), &message))
            }
            Output::Epoch { network, left, .. } => self.follow_epoch(slot, &network, &left),
            Output::Ahead { network } => self.look_ahead(slot, &network),
            Output::ServeManifest { to, root } => self.serve_manifest(slot, to, root),
            Output::ServeChunk { to, root, number } => self.serve_chunk(slot, to, (root, number)),
            Output::Transfer(step) => self.transfer(slot, step),
            Output::Evidence(evidence) => {
                let accused = evidence.accused();
                if let Some(wronged) = accused.iter().find(|one| !self.liars.contains(one))
                    && honest
                {
                    return Err(format!("{id} accuses {wronged}, who is honest: {evidence:?}"));
                }
                if honest {
                    self.proven(&evidence);
                }
                self.nodes[slot].proofs.keep(&evidence, self.now);
                self.count("evidence");
                Ok(())
            }
            Output::Alarm(Alarm::BadPeer { peer, what })
                if honest
                    && !self.liars.contains(&peer)
                    && !self.verifier.epochs.rotated.contains(&peer) =>
            {
                Err(format!("{id} blames {peer}, who is honest: {what}"))
            }
            Output::Alarm(Alarm::RollbackDetected { reason }) => {
                self.count("fenced");
                let node = &mut self.nodes[slot];
                if honest && node.lost == Lost::No {
                    return Err(format!("{id} lost nothing and is fenced: {reason}"));
                }
                if node.lost != Lost::Joined {
                    node.lost = Lost::Fenced;
                }
                Ok(())
            }
            Output::Alarm(Alarm::Rejoined { .. }) => {
                self.count("rejoined");
                self.nodes[slot].lost = Lost::No;
                Ok(())
            }
            Output::Alarm(_) => {
                self.count("alarm");
                Ok(())
            }
            Output::Quarantine { .. } if self.nodes[slot].lost == Lost::Damaged => {
                self.quarantine(slot);
                Ok(())
            }
            Output::Quarantine { reason } | Output::Halt { reason } if honest => {
                if self.halts_beyond(slot, &reason) {
                    return Ok(());
                }
                Err(format!("{id} gives up: {reason}"))
            }
            Output::Quarantine { .. } | Output::Halt { .. } => Ok(()),
        }
    }

    fn append(
        &mut self,
        slot: usize,
        position: LogPosition,
        record: &Record,
    ) -> Result<(), String> {
        let honest = self.honest(slot);
        self.say(slot, || format!("append {position} {}", name_of(record)));
        self.audit.note(self.now, slot, "append", &[record.tag()]);
        match record {
            Record::Prepared(certificate) | Record::Committed(certificate) => {
                if let Some(why) = self.verifier.refuse(certificate) {
                    return Err(format!("{slot} keeps a certificate that proves nothing: {why}"));
                }
            }
            Record::CheckpointStable(certificate) => {
                if honest {
                    let same = self.agreement.checkpoint(&certificate.id);
                    self.within_f(same)?;
                }
                self.count("checkpoint stable");
            }
            Record::ViewChangeSent { .. } => self.count("view change"),
            Record::ViewEntered { base_height, .. } if *base_height > Height(0) => {
                self.entered(slot, *base_height);
            }
            _ => {}
        }
        let (id, honest) = (self.nodes[slot].identity.id, self.honest(slot));
        let Some(life) = &mut self.nodes[slot].life else { return Ok(()) };
        if honest {
            self.fences.appended(id, (life.nonce, life.since), record, self.now)?;
        }
        let placed = life.appender.append(position, record);
        life.appended = position;
        self.nodes[slot].promises.appended(position, record);
        let Some(life) = &mut self.nodes[slot].life else { return Ok(()) };
        if let Record::CheckpointStable(certificate) = record {
            life.stable.appended(position, certificate.id.height);
        }
        if let Record::Block(block) = record {
            life.machine.remember(placed, block);
            life.placed.insert(block.hash(), placed);
        }
        Ok(())
    }

    fn entered(&mut self, slot: usize, base: Height) {
        self.count("view entered on a base");
        let lives = self.nodes.iter().filter_map(|node| node.life.as_ref());
        let stable: Vec<Height> = lives.map(|life| life.core.status().stable_checkpoint).collect();
        if stable.iter().any(|one| *one != stable[0]) {
            self.count("view entered while stable checkpoints differ");
        }
        let committed = self.nodes[slot].life.as_ref().map_or(Height(0), |life| life.shown.1);
        if base > committed {
            self.count("certificate carried over a view change");
        }
    }

    pub(super) fn transmit(
        &mut self,
        slot: usize,
        to: Recipients,
        message: &Message,
    ) -> Result<(), String> {
        let id = self.nodes[slot].identity.id;
        if self.nodes[slot].life.is_none() {
            return Ok(());
        }
        if !self.bent.contains_key(&id) {
            let promises = &self.nodes[slot].promises;
            let sent = self.ledger.sent(id, message, promises, &self.verifier);
            self.within_f(sent)?;
        }
        if matches!(message, Message::Votes(_)) && self.nodes[slot].lost == Lost::Joined {
            self.count("joiner votes");
            self.nodes[slot].lost = Lost::No;
        }
        if matches!(message, Message::GetBody { .. }) {
            self.count("body asked for");
        }
        let bytes = message.to_bytes();
        self.say(slot, || format!("send {to:?} {}", kind_of(message)));
        self.audit.note(self.now, slot, "send", &bytes);
        for other in 0..self.nodes.len() {
            let peer = self.nodes[other].identity.id;
            let addressed = match to {
                Recipients::One(one) => peer == one,
                Recipients::Others => true,
                Recipients::Voters => self.nodes[slot].voters.contains(&peer),
            };
            let linked = self.nodes[slot].links.contains(&peer)
                && (self.nodes[other].links.contains(&id) || self.nodes[other].life.is_none());
            if !addressed || !linked {
                continue;
            }
            // A network does not begin without all: what is asked and answered then is left alone.
            let first_start =
                matches!(message, Message::VotesQuestion { .. } | Message::VotesAnswer(_));
            let Some(liar) = self.bent.get_mut(&id).filter(|_| !first_start) else {
                self.post((slot, other), bytes.clone(), 0);
                continue;
            };
            let (frames, lies) = liar.tell(peer, message);
            let counter = liar.lie.counter();
            if lies {
                self.count(counter);
            }
            for Frame { bytes, late } in frames {
                self.overhear(id, &bytes);
                self.post((slot, other), bytes, late);
            }
        }
        Ok(())
    }

    fn post(&mut self, (slot, other): (usize, usize), bytes: Bytes, late: Micros) {
        let from = self.nodes[slot].identity.id;
        for at in self.network.arrivals(slot, other, self.now) {
            let bytes = bytes.clone();
            self.schedule_at(at + late, Event::Deliver { to: other, from, bytes });
        }
    }

    /// What a liar says counts as far as it signed it.
    fn overhear(&mut self, liar: ReplicaId, bytes: &Bytes) {
        if let Ok(message) = Message::from_bytes(bytes.clone()) {
            self.ledger.overheard(liar, &message, &self.verifier);
        }
    }

    pub(super) fn deliver(
        &mut self,
        to: usize,
        from: ReplicaId,
        bytes: Bytes,
    ) -> Result<(), String> {
        if self.nodes[to].life.is_none() {
            return Ok(());
        }
        self.audit.note(self.now, to, "deliver", &bytes);
        let mut message = match Message::from_bytes(bytes) {
            Ok(message) => message,
            Err(_) if self.liars.contains(&from) => {
                self.count("frame refused");
                return Ok(());
            }
            Err(error) => return Err(format!("{from} sent what does not decode: {error}")),
        };
        self.notice(to, &message);
        if self.bent.get(&self.nodes[to].identity.id).is_some_and(|liar| !liar.hears(&message)) {
            self.count("lie: censored bundle");
            return Ok(());
        }
        if let Message::VotesAnswer(answer) = &mut message
            && !self.honest(to)
        {
            // A liar does not stop itself because of what its twin voted.
            answer.votes = ShownVotes::default();
            answer.standing = answer.standing.min(Standing::Agreed);
        }
        self.say(to, || format!("from {from}: {}", kind_of(&message)));
        self.step(to, Input::Recv { peer: from, message })
    }

    /// Rare arrivals.
    fn notice(&mut self, to: usize, message: &Message) {
        let Some(life) = &self.nodes[to].life else { return };
        let height = life.machine.height();
        let window = u64::from(life.machine.state.membership().parameters.window);
        match message {
            Message::PrePrepare { block, .. } if block.header.height > height.plus(window) => {
                self.count("proposal beyond the window");
            }
            Message::Blocks { blocks, .. }
                if blocks.last().is_some_and(|block| block.header.height <= height) =>
            {
                self.count("page of known blocks");
            }
            _ => {}
        }
    }

    pub(super) fn synced(&mut self, slot: usize) -> Result<(), String> {
        let Some(life) = &mut self.nodes[slot].life else { return Ok(()) };
        let Some(batch) = life.batch.take() else { return Ok(()) };
        batch
            .write(&self.nodes[slot].disk)
            .map_err(|error| format!("{slot} cannot write its log: {error}"))?;
        let Some(life) = &mut self.nodes[slot].life else { return Ok(()) };
        life.durable = batch.last;
        life.appender.durable(batch.last);
        self.nodes[slot].promises.durable(batch.last);
        let Some(life) = &mut self.nodes[slot].life else { return Ok(()) };
        life.reader.advance(batch.end);
        life.machine.values.durable(batch.end);
        let (open, waiting) = core::mem::take(&mut life.waiting)
            .into_iter()
            .partition::<Vec<_>, _>(|message| message.gate <= batch.last);
        life.waiting = waiting;
        for Waiting { to, message, .. } in open {
            self.transmit(slot, to, &message)?;
        }
        if let Some(life) = &mut self.nodes[slot].life {
            life.stable.durable(batch.last);
            life.open_segment = batch.end.segment;
        }
        self.step(slot, Input::Durable { position: batch.last })?;
        self.end_with_old_key(slot);
        self.prune(slot)
    }

    fn execute_next(&mut self, slot: usize) {
        let delay = self.random.between(20, self.plan.execute_max.max(20));
        self.schedule_local(slot, delay, Local::Executed);
    }

    pub(super) fn executed(&mut self, slot: usize) -> Result<(), String> {
        #[cfg(feature = "planted")]
        let wall = self.wall_ms(slot);
        let Some(life) = &mut self.nodes[slot].life else { return Ok(()) };
        let Some(block) = life.to_execute.pop_front() else { return Ok(()) };
        let more = !life.to_execute.is_empty();
        let (height, hash) = (block.header.height, block.hash());
        if height != life.machine.height().next() {
            return Err(format!("{slot} executes {height} after {}", life.machine.height()));
        }
        let placed = *life.placed.get(&hash).ok_or(format!("{slot} executes {height} unlogged"))?;
        if self.nodes[slot].quarantined {
            return Ok(());
        }
        self.executed_beyond(slot, height, hash);
        let first = self.agreement.executes(&block);
        if self.within_f(first)? {
            self.note_change(&block)?;
            self.model.execute(&block);
            if self.ledger.chosen(height).is_some_and(|chosen| chosen != hash) {
                return Err(format!("{slot} executes another block at {height} than q committed"));
            }
        }
        #[cfg(feature = "planted")]
        althing::planted::set_local_ms(wall);
        let Some(life) = &mut self.nodes[slot].life else { return Ok(()) };
        let outcome = match life.machine.execute(&block, placed) {
            Ok(outcome) => outcome,
            Err(error) => {
                return self.hurt(slot, format!("{slot} cannot execute {height}: {error}"));
            }
        };
        let mut root = outcome.effects.exec_root;
        if self.plan.mutant == Some(Mutant::OtherRoot) && slot == 0 && height == Height(20) {
            root.0[0] ^= 1;
        }
        let same = self.agreement.executed(height, root);
        self.within_f(same)?;
        self.within_f(self.model.compare(&outcome.effects, outcome.revision.0))?;
        self.say(slot, || format!("executed {height}, revision {}", outcome.revision));
        self.audit.note(self.now, slot, "executed", &outcome.effects.exec_root.0);
        self.answer_writes(slot, &outcome)?;
        if outcome.checkpoint_wanted {
            self.begin_checkpoint(slot, block.header.clone());
        }
        let (effects, next_expiry) = (outcome.effects, outcome.next_expiry);
        let network = outcome.network.map(Box::new);
        if next_expiry.is_some() {
            self.count("leases exist");
        }
        let administrators = outcome.administrators;
        self.step(slot, Input::Executed { effects, next_expiry, network, administrators })?;
        if more {
            self.execute_next(slot);
        }
        self.answer_reads(slot)
    }

    fn begin_checkpoint(&mut self, slot: usize, header: BlockHeader) {
        let Some(life) = &mut self.nodes[slot].life else { return };
        if life.checkpoint.is_some() {
            return;
        }
        let mark = life.appender.replay_mark(header.height);
        life.appender.rotate();
        life.checkpoint = Some(Checkpointing::begin(&mut life.machine, header, mark));
        self.count("checkpoint begun");
        let delay = self.random.between(MILLI, 30 * MILLI);
        self.schedule_local(slot, delay, Local::Checkpoint);
    }

    pub(super) fn checkpoint_slice(&mut self, slot: usize) -> Result<(), String> {
        let node = &mut self.nodes[slot];
        let Some(life) = &mut node.life else { return Ok(()) };
        let Some(checkpoint) = &mut life.checkpoint else { return Ok(()) };
        // The first slice comes behind the step that followed the block: its records are appended.
        let early = self.plan.mutant == Some(Mutant::CheckpointBeforeLog);
        if life.durable < *checkpoint.after.get_or_insert(life.appended) && !early {
            self.count("checkpoint waited for the log");
            self.schedule_local(slot, MILLI, Local::Checkpoint);
            return Ok(());
        }
        let stable = life.stable.certified();
        let keeper = (&node.identity.cluster_id, &mut life.in_use, stable.as_slice());
        let done = checkpoint.slice(&mut life.machine, &node.disk, keeper);
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                // Half of it was done: it does not go on in the crash that follows.
                life.checkpoint = None;
                let what = format!("{slot} makes no checkpoint: {error}");
                return if node.lost == Lost::Damaged { self.hurt(slot, what) } else { Err(what) };
            }
        };
        if let Some(id) = done {
            let height = id.height;
            // As in the node: an event since the checkpoint began may refer to a version before it.
            life.moved = life.machine.state.kv.revision();
            life.checkpoint = None;
            life.appender.forget_below(life.checkpoint_height);
            life.checkpoint_height = height;
            life.stable.built(height);
            node.checkpoint_durable = height;
            self.count("checkpoint on disk");
            self.say(slot, || format!("checkpoint at {height} is on disk"));
            return self.checkpoint_built(slot, id);
        }
        let delay = self.random.between(MILLI, 30 * MILLI);
        self.schedule_local(slot, delay, Local::Checkpoint);
        Ok(())
    }

    fn answer_writes(
        &mut self,
        slot: usize,
        outcome: &althing::apply::Outcome,
    ) -> Result<(), String> {
        let honest = self.honest(slot);
        let node = &mut self.nodes[slot];
        let Some(life) = &mut node.life else { return Ok(()) };
        let own_session = life.session;
        for (session, seq, reply) in &outcome.replies {
            if *session != own_session {
                continue;
            }
            let name = (node.identity.id.0, *session, *seq);
            let sent = life.open.remove(seq);
            if let Reply::Error { error: OpError::Config(_), .. } = reply {
                *self.seen.entry("change refused").or_default() += 1;
            }
            if honest && sent.is_some() {
                let right = self.requests.answered(name, reply, outcome.revision.0, &self.model);
                if !self.plan.beyond {
                    right?;
                }
                self.requests.height = self.requests.height.max(outcome.effects.height);
            }
            let late = matches!(reply, Reply::Error { error: OpError::TimedOut, .. });
            let after =
                self.healed_at.is_some_and(|at| sent.is_some_and(|sent| sent > at + SECOND));
            life.served |= after && !late;
        }
        Ok(())
    }

    fn answer_reads(&mut self, slot: usize) -> Result<(), String> {
        let Some(mut life) = self.nodes[slot].life.as_mut() else { return Ok(()) };
        let height = life.machine.height();
        let (ready, later) = core::mem::take(&mut life.ready)
            .into_iter()
            .partition::<Vec<_>, _>(|(_, needed)| *needed <= height);
        life.ready = later;
        for (id, _) in ready {
            let Some(read) = life.reads.remove(&id) else { continue };
            let range = Range { key: read.key.clone(), ..Range::default() };
            let kv = &life.machine.state.kv;
            let result = kv.range(&range).map_err(|error| format!("a read failed: {error:?}"))?;
            let found = match result.kvs.first() {
                Some(kv) => match life.machine.values.read(kv.value) {
                    Ok(value) => Some((kv.modified.0, value.bytes)),
                    Err(error) => return self.hurt(slot, format!("a read failed: {error}")),
                },
                None => None,
            };
            let revision = kv.revision().0;
            let right = self.requests.read(&read, revision, found, &self.model);
            self.within_f(right)?;
            let Some(next) = self.nodes[slot].life.as_mut() else { return Ok(()) };
            life = next;
        }
        Ok(())
    }

    /// A page of blocks, or what is said instead; in some plans blocks up to the stable checkpoint are
    /// not served.
    fn serve(
        &mut self,
        slot: usize,
        range: (Height, Height),
        instead: Option<Message>,
    ) -> Result<Option<Message>, String> {
        let Some(life) = &mut self.nodes[slot].life else { return Ok(None) };
        let page = match life.reader.read_blocks(range.0, range.1, PAGE_BYTES_MAX) {
            Ok(page) => page,
            Err(error) => {
                self.unread(slot, format!("{slot} cannot read its log: {error}"))?;
                return Ok(None);
            }
        };
        let refused = self.plan.erases && instead.is_some();
        let Some(page) = page.filter(|page| page.has_values() && !refused) else {
            self.count(if instead.is_some() { "blocks erased" } else { "page not held" });
            return Ok(instead);
        };
        let blocks = page.blocks;
        let is_part = blocks.first().is_some_and(|block| block.header.height > range.0);
        let message = Message::Blocks { blocks, certificate: page.certificate };
        if message.to_bytes().len() > Message::BYTES_MAX {
            return Err(format!("{slot} serves a page that no link takes"));
        }
        if is_part {
            self.count("page in parts");
        }
        self.count("page served");
        Ok(Some(message))
    }

    pub(super) fn write(&mut self, slot: usize) -> Result<(), String> {
        let wall = self.wall_ms(slot);
        let node = &mut self.nodes[slot];
        let session = node.session();
        let Some(life) = &mut node.life else { return Ok(()) };
        let after_faults = self.healed_at.is_some();
        let admits = life.core.admits_requests();
        if session != life.session {
            // The session before is closed: what becomes of its ops is not told any more.
            (life.session, life.next_seq) = (session, 0);
            life.open.clear();
        }
        let wanted = admits && life.open.len() < OPEN_MAX;
        let workload = wanted && !(after_faults && life.served);
        let proof = if wanted { node.due_proof(self.now) } else { None };
        let Some(life) = &mut node.life else { return Ok(()) };
        if workload || proof.is_some() {
            let newest = life.machine.state.counters.time_ms.0;
            let numbers = Numbers {
                session,
                first_seq: life.next_seq,
                not_after_ms: Millis(wall.max(newest) + PATIENCE_MS),
            };
            let identity = &node.identity;
            let state = &life.machine.state;
            let users = state.auth.store(OrgId(identity.id.0)).revision;
            let users = self.plan.users.then_some(users);
            let known = Known { revision: state.kv.revision().0, users };
            let (cluster_id, scheme) = (&identity.cluster_id, identity.scheme.as_ref());
            let ordered = proof.is_some();
            let change = || self.changes.take(slot).map(|change| Op::Config(Box::new(change)));
            let bundle = match proof.or_else(change) {
                Some(op) => node.workload.alone(&numbers, op, cluster_id, scheme),
                None => node.workload.bundle(&numbers, &known, cluster_id, scheme),
            };
            for seq in bundle.first_seq..bundle.end_seq() {
                life.open.insert(seq, self.now);
            }
            life.next_seq = bundle.end_seq();
            if ordered {
                self.count("proof handed in");
            }
            self.step(slot, Input::Submit { bundle })?;
        }
        let every = if after_faults { 200 * MILLI } else { self.plan.bundle_every };
        let delay = self.random.between(every / 4, 2 * every);
        self.schedule_local(slot, delay, Local::Write);
        Ok(())
    }

    pub(super) fn read(&mut self, slot: usize) -> Result<(), String> {
        let at_least = self.requests.seen;
        let (now, node) = (self.now, &mut self.nodes[slot]);
        let Some(life) = &mut node.life else { return Ok(()) };
        let after_faults = self.healed_at.is_some();
        let wanted = life.reads.len() < 20 && !(after_faults && life.served);
        let id = life.next_read;
        if wanted {
            life.next_read += 1;
            let key = node.workload.key();
            life.reads.insert(id, OpenRead { key, at_least, since: now });
            if self.plan.mutant == Some(Mutant::EagerRead) {
                life.ready.push((id, Height(0)));
                self.answer_reads(slot)?;
            } else {
                self.step(slot, Input::ReadRequest { id })?;
            }
        }
        let every = self.plan.read_every;
        let delay = self.random.between(every / 4, 2 * every);
        self.schedule_local(slot, delay, Local::Read);
        Ok(())
    }

    /// The process and its machine die; the disk keeps what it must and chance leaves of the rest.
    pub(super) fn crash(&mut self, slot: usize) {
        if !self.has_begun() {
            return;
        }
        self.crash_inside_prune(slot);
        let Some(mut life) = self.nodes[slot].life.take() else { return };
        self.say(slot, || "crashes".to_owned());
        self.count("crash");
        if !self.liars.is_empty() && self.honest(slot) {
            self.count("crash beside liars");
        }
        if life.core.status().mode == Mode::ViewChange {
            self.count("crash in a view change");
        }
        let disk = self.nodes[slot].disk.clone();
        if let Some(batch) = life.batch {
            disk.fail_after(self.random.below(4));
            if batch.write(&disk).is_err() {
                self.count("crash inside a write");
            }
        }
        if let Some(mut checkpoint) = life.checkpoint {
            disk.fail_after(self.random.below(12));
            let cluster_id = self.nodes[slot].identity.cluster_id;
            let stable = life.stable.certified();
            while let Ok(None) =
                checkpoint.slice(&mut life.machine, &disk, (&cluster_id, &mut life.in_use, &stable))
            {
            }
            self.count("crash inside a checkpoint");
        }
        self.nodes[slot].promises.crashed();
        let policy = *self.random.pick(&Survivors::ALL);
        disk.crash(policy, &mut self.random);
        self.tell_links(slot, false);
        let down = self.random.between(20 * MILLI, 3 * SECOND);
        self.schedule(down, Event::Restart { slot });
    }

    pub(super) fn restart(&mut self, slot: usize) -> Result<(), String> {
        let faults = self.healed_at.is_none() && self.nodes[slot].starts > 0;
        if faults && self.random.chance(100) {
            let disk = self.nodes[slot].disk.clone();
            disk.fail_after(self.random.below(12));
            let failed = self.nodes[slot].boot(self.now, &mut self.random).is_err();
            self.nodes[slot].life = None;
            self.nodes[slot].promises.crashed();
            disk.crash(Survivors::Random, &mut self.random);
            if failed {
                self.count("crash in recovery");
            }
            self.schedule(100 * MILLI, Event::Restart { slot });
            return Ok(());
        }
        if self.nodes[slot].lost == Lost::Damaged {
            // What rotted at the log's end may be taken for a torn tail: that much is forgotten.
            self.nodes[slot].promises.lost();
            let id = self.nodes[slot].identity.id;
            self.ledger.forget(id);
        }
        if let Err(error) = self.nodes[slot].boot(self.now, &mut self.random) {
            return self.starts_damaged(slot, format!("{slot} does not start: {error}"));
        }
        let Some(life) = &self.nodes[slot].life else { return Ok(()) };
        let height = life.machine.height();
        if life.checkpoint_height > Height(0) {
            self.count("start from a checkpoint");
        }
        self.replayed(slot)?;
        let Some(life) = &self.nodes[slot].life else { return Ok(()) };
        for (height, root) in life.machine.roots() {
            let same = self.agreement.executed(height, root);
            self.within_f(same)?;
        }
        self.say(slot, || format!("starts at height {height}"));
        self.tell_links(slot, true);
        self.step(slot, Input::Tick { mono_ms: 0 })?;
        let (write, read) = (self.random.below(50 * MILLI), self.random.below(100 * MILLI));
        self.schedule_local(slot, write, Local::Write);
        self.schedule_local(slot, read, Local::Read);
        Ok(())
    }

    /// A replay may be the first to execute a committed block: nobody may have done so before the crash.
    fn replayed(&mut self, slot: usize) -> Result<(), String> {
        let Some(life) = &mut self.nodes[slot].life else { return Ok(()) };
        for block in core::mem::take(&mut life.replayed) {
            let first = self.agreement.executes(&block);
            if self.within_f(first)? {
                self.note_change(&block)?;
                self.model.execute(&block);
                self.count("executed first by a replay");
            }
        }
        Ok(())
    }

    /// Both ends of every link of an instance learn that it stands or broke.
    fn tell_links(&mut self, slot: usize, up: bool) {
        let id = self.nodes[slot].identity.id;
        for other in 0..self.nodes.len() {
            let peer = self.nodes[other].identity.id;
            let linked =
                self.nodes[slot].links.contains(&peer) && self.nodes[other].links.contains(&id);
            if !linked || self.nodes[other].life.is_none() {
                continue;
            }
            let delay = self.random.between(100, 20 * MILLI);
            self.schedule_local(other, delay, Local::Link { peer: id, up });
            if up {
                self.schedule_local(slot, delay, Local::Link { peer, up });
            }
        }
    }
}

fn name_of(record: &Record) -> String {
    match record {
        Record::ViewEntered { view, base_height, .. } => {
            format!("ViewEntered {view} on {base_height}")
        }
        Record::ViewChangeSent { view, .. } => format!("ViewChangeSent {view}"),
        Record::Block(block) => format!("Block {} {:?}", block.header.height, block.hash()),
        Record::Prepared(certificate) => {
            format!("Prepared view {} height {}", certificate.view, certificate.height)
        }
        Record::Committed(certificate) => {
            format!("Committed view {} height {}", certificate.view, certificate.height)
        }
        Record::Effects(effects) => format!("Effects {}", effects.height),
        other => format!("record {}", other.tag()),
    }
}

fn kind_of(message: &Message) -> String {
    match message {
        Message::PrePrepare { block, .. } => {
            let header = &block.header;
            format!("PRE-PREPARE view {} height {} {:?}", header.view, header.height, block.hash())
        }
        Message::Votes(votes) => {
            let vote = |vote: &althing::chain::Vote| {
                let signed = &vote.signed;
                let (from, count) = (signed.from_height, signed.hashes.len());
                format!("{:?} view {} from {from} x{count}", vote.phase, vote.view)
            };
            votes.iter().map(vote).collect::<Vec<_>>().join(", ")
        }
        Message::ViewChange(view_change) => {
            format!("VIEW-CHANGE {} of {}", view_change.view, view_change.replica)
        }
        Message::NewView(new_view) => format!("NEW-VIEW {}", new_view.view),
        Message::Status(status) => {
            let (view, mode) = (status.view, status.mode);
            format!("STATUS view {view} {mode:?} {}/{}", status.committed, status.executed)
        }
        Message::Certificate(certificate) => {
            format!("certificate {:?} height {}", certificate.phase, certificate.height)
        }
        Message::Bundle(bundle) => format!("bundle of {} from {}", bundle.origin, bundle.first_seq),
        Message::GetBlocks { from, until } => format!("GetBlocks {from}..{until}"),
        Message::Blocks { blocks, .. } => format!("Blocks x{}", blocks.len()),
        Message::ReadIndex { .. } => "ReadIndex".to_owned(),
        Message::ReadAnswer(answer) => format!("ReadAnswer {}", answer.mark),
        Message::ReadProof { mark } => format!("ReadProof {mark}"),
        Message::GetBody { hash } => format!("GetBody {hash:?}"),
        Message::Body(block) => format!("Body {}", block.header.height),
        Message::Rejoin(rejoin) => format!("REJOIN of {}", rejoin.replica),
        Message::VotesQuestion { .. } => "VotesQuestion".to_owned(),
        Message::VotesAnswer(answer) => format!("VotesAnswer {:?}", answer.standing),
        Message::GetEpochs { from } => format!("GetEpochs {from}"),
        Message::Epochs(proofs) => format!("Epochs {}", proofs.len()),
        Message::Checkpoint(vote) => {
            format!("CHECKPOINT {} of {}", vote.id.height, vote.replica)
        }
        Message::CheckpointCertificate(certificate) => {
            format!("checkpoint certificate {}", certificate.id.height)
        }
        Message::GetManifest { root } => format!("GetManifest {root:?}"),
        Message::Manifest { content, .. } => match content {
            Some((header, manifest)) => {
                format!("Manifest {} of {} chunks", header.height, manifest.chunks.len())
            }
            None => "no Manifest".to_owned(),
        },
        Message::GetChunk { number, .. } => format!("GetChunk {number}"),
        Message::Chunk { number, bytes, .. } => {
            format!("Chunk {number} of {:?} bytes", bytes.as_ref().map(Bytes::len))
        }
        Message::Erased { from, certificate } => {
            format!("erased from {from}, use checkpoint {}", certificate.id.height)
        }
        Message::Follow { from } => format!("Follow from {from}"),
        Message::Shown(vote) => format!("Shown {:?} of {}", vote.phase, vote.signed.replica),
        Message::Evidence(evidence) => format!("Evidence {}", evidence.kind().name()),
    }
}
