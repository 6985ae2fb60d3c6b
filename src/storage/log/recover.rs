//! Reading the log back at start: every record, then where to go on.
//!
//! A bad place is a torn tail if no record behind it says that the place was durable before: then
//! nobody was promised anything that stood there, and zeros are written over the rest. Otherwise
//! something promised is lost, and nothing on disk is changed (protocol: corruption).

use crate::chain::Record;
use crate::planted::{self, Bug};
use crate::storage::disk::{Disk, DiskError, Open};
use crate::storage::log::appender::{LogEnd, Preparation, Track};
use crate::storage::log::frame::{FRAME_HEAD_BYTES, SegmentHeader};
use crate::storage::log::scan::{Opened, SegmentReader, Step, Window, decode, open_segment};
use crate::storage::log::{
    Appender, LOG_DIRECTORY, LogError, LogSettings, Placed, ReplayMark, SEGMENT_HEADER_BYTES,
    segment_path, segments,
};
use crate::types::{Digest, LogPosition};

/// Who is shown every record.
pub type Visitor<'a> = dyn FnMut(LogPosition, Placed, Record) + 'a;

/// A log ready to go on.
#[derive(Debug)]
pub struct Recovered {
    /// Goes on behind the last record.
    pub appender: Appender,
    /// The last record's position; 0 if there is none.
    pub log_end: LogPosition,
    /// Bytes of a torn tail that were overwritten with zeros.
    pub cut_bytes: u64,
}

/// Where reading stopped.
struct Stop {
    header: SegmentHeader,
    offset: u32,
    chain: Digest,
    /// The record that would have come next.
    expected: LogPosition,
    why: &'static str,
}

/// Reads the log from `from` on, shows every record to `visit` in order, and returns the appender.
/// A log that does not exist is made. Records of `from.carried` are not shown.
///
/// # Errors
/// [`LogError`]; nothing was changed on disk, though `visit` has been called.
pub fn recover(
    disk: &dyn Disk,
    settings: &LogSettings,
    from: ReplayMark,
    visit: &mut Visitor<'_>,
) -> Result<Recovered, LogError> {
    disk.create_directory(LOG_DIRECTORY)?;
    disk.sync_directory("")?;
    let present: Vec<u32> =
        segments(disk)?.into_iter().filter(|segment| *segment >= from.segment).collect();
    let (segment, first_position) = (from.segment, from.first_position);
    let mut track = Track::new(from);
    let contiguous = present.iter().zip(segment..).all(|(one, two)| *one == two);
    if !contiguous || (present.is_empty() && segment > super::FIRST_SEGMENT) {
        let missing = (segment..).find(|number| !present.contains(number)).unwrap_or(segment);
        return Err(LogError::Missing { segment: missing });
    }
    let Some(stop) = read(disk, settings, &present, (first_position, &mut track, visit))? else {
        return begin(disk, settings, segment, track);
    };
    refuse_rot(disk, settings, &present, &stop)?;
    let cut_bytes = cut(disk, &present, &stop)?;
    let end = LogEnd {
        header: stop.header,
        offset: stop.offset,
        chain: stop.chain,
        last: stop.expected.minus(1),
    };
    let log_end = end.last;
    Ok(Recovered { appender: Appender::resume(*settings, &end, track), log_end, cut_bytes })
}

/// A new log, or one whose first segment was never finished.
fn begin(
    disk: &dyn Disk,
    settings: &LogSettings,
    segment: u32,
    track: Track,
) -> Result<Recovered, LogError> {
    if segment != super::FIRST_SEGMENT {
        let (position, why) = (LogPosition::default(), "the segment's header is gone");
        return Err(LogError::Rot { segment, offset: 0, position, why });
    }
    let (preparation, header) = Preparation::first(settings);
    preparation.finish(disk)?;
    let end = LogEnd {
        header,
        offset: SEGMENT_HEADER_BYTES,
        chain: header.chain_start(),
        last: LogPosition(0),
    };
    let appender = Appender::resume(*settings, &end, track);
    Ok(Recovered { appender, log_end: LogPosition(0), cut_bytes: 0 })
}

/// Reads records up to the first place where none stands; None if not even the first segment's
/// header was written.
fn read(
    disk: &dyn Disk,
    settings: &LogSettings,
    present: &[u32],
    (first_position, track, visit): (LogPosition, &mut Track, &mut Visitor<'_>),
) -> Result<Option<Stop>, LogError> {
    let mut stop: Option<Stop> = None;
    let mut expected = first_position;
    for &segment in present {
        let reader = match open_segment(disk, settings, segment, Open::Read)? {
            Opened::Ready(reader) => reader,
            // Only the last segment can be unfinished: the next is prepared when this one is in use.
            Opened::Unfinished if Some(&segment) == present.last() => break,
            Opened::Unfinished => {
                let why = "the segment's header is gone";
                return Err(LogError::Rot { segment, offset: 0, position: expected, why });
            }
        };
        let mut reader = reader;
        if let Some(stop) = &stop {
            check_same_log(&stop.header, &reader.header(), settings)?;
            let follows = reader.peek()?.is_some_and(|head| head.position == expected);
            if !follows {
                break;
            }
            track.begin_segment(segment, expected);
        }
        reader.expect(expected);
        let why = read_segment(&mut reader, &mut expected, track, visit)?;
        let (header, offset, chain) = (reader.header(), reader.offset(), reader.chain());
        stop = Some(Stop { header, offset, chain, expected, why });
    }
    Ok(stop)
}

fn check_same_log(
    one: &SegmentHeader,
    other: &SegmentHeader,
    settings: &LogSettings,
) -> Result<(), LogError> {
    if one.salt == other.salt {
        return Ok(());
    }
    let segment = other.segment;
    Err(LogError::OtherReplica { segment, found: other.replica, own: settings.replica })
}

fn read_segment(
    reader: &mut SegmentReader,
    expected: &mut LogPosition,
    track: &mut Track,
    visit: &mut Visitor<'_>,
) -> Result<&'static str, LogError> {
    let segment = reader.header().segment;
    loop {
        let offset = reader.offset();
        match reader.step()? {
            Step::Record { head, payload } => {
                let record = decode(segment, offset, payload)?;
                track.note(head.position, &record);
                *expected = head.position.next();
                let placed = Placed { segment, offset: offset + FRAME_HEAD_BYTES };
                visit(head.position, placed, record);
            }
            Step::End => return Ok("nothing is there"),
            Step::Bad(why) => return Ok(why),
        }
    }
}

/// Fails if any record at or behind the stop was written after the missing one had been synced.
fn refuse_rot(
    disk: &dyn Disk,
    settings: &LogSettings,
    present: &[u32],
    stop: &Stop,
) -> Result<(), LogError> {
    let segment = stop.header.segment;
    for &later in present.iter().filter(|number| **number >= segment) {
        let Opened::Ready(mut reader) = open_segment(disk, settings, later, Open::Read)? else {
            continue;
        };
        check_same_log(&stop.header, &reader.header(), settings)?;
        let from = if later == segment { stop.offset } else { SEGMENT_HEADER_BYTES };
        let rot = reader.promised_behind(from, stop.expected)?.is_some();
        if rot && !planted::is(Bug::MidLogTruncation) {
            let (offset, position, why) = (u64::from(stop.offset), stop.expected, stop.why);
            return Err(LogError::Rot { segment, offset, position, why });
        }
    }
    Ok(())
}

/// Writes zeros over everything behind the stop, so that nothing of it is ever read as a record, and
/// syncs what was read: after a killed process it may still be in the system's cache only.
fn cut(disk: &dyn Disk, present: &[u32], stop: &Stop) -> Result<u64, DiskError> {
    let mut cut_bytes = 0;
    let segment = stop.header.segment;
    for &number in present.iter().filter(|number| **number >= segment.saturating_sub(1)) {
        let file = disk.open(&segment_path(number), Open::Create)?;
        let from = match number.cmp(&segment) {
            core::cmp::Ordering::Less => None,
            core::cmp::Ordering::Equal => Some(u64::from(stop.offset)),
            core::cmp::Ordering::Greater => Some(u64::from(SEGMENT_HEADER_BYTES)),
        };
        if let Some(from) = from {
            let mut window = Window::new(std::sync::Arc::clone(&file))?;
            let end = window.nonzero_end(from)?;
            zero(&*file, from, end)?;
            cut_bytes += end - from;
        }
        file.sync()?;
    }
    Ok(cut_bytes)
}

fn zero(file: &dyn crate::storage::disk::DiskFile, from: u64, end: u64) -> Result<(), DiskError> {
    let zeros = [0; 4096];
    let mut offset = from;
    while offset < end {
        let length = usize::try_from(end - offset).unwrap_or(usize::MAX).min(zeros.len());
        file.write_at(offset, &zeros[..length])?;
        offset += length as u64;
    }
    Ok(())
}
