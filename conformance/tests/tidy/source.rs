//! Source files as the rules see them: where a file belongs, what of it is test code, and its code with
//! comments and literals blanked out.

use std::path::{Path, PathBuf};

/// One Rust file under `src/`.
pub struct Source {
    /// Relative to the repository, with `/`.
    pub path: String,
    /// The top-level module it belongs to; "lib" and "main" for the roots.
    pub module: String,
    /// How many module levels it lies below the crate root.
    pub depth: usize,
    /// Its lines up to the unit tests; empty for a file that is all tests.
    pub lines: Vec<String>,
    /// The same lines without comments and literals, joined.
    pub code: String,
    /// Lines of unit tests.
    pub test_lines: usize,
}

/// The repository's root.
pub fn root() -> PathBuf {
    // Cargo sets it for the run too; asked then, the built test also judges another checkout.
    let package = std::env::var("CARGO_MANIFEST_DIR");
    Path::new(package.as_deref().unwrap_or(env!("CARGO_MANIFEST_DIR"))).join("..")
}

/// All files below `folder` (relative to the root) whose names end with one of `endings`, sorted.
pub fn files(folder: &str, endings: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::from(folder)];
    while let Some(folder) = open.pop() {
        let Ok(entries) = std::fs::read_dir(root().join(&folder)) else { continue };
        for entry in entries.flatten() {
            let path = folder.join(entry.file_name());
            let name = path.to_string_lossy().replace('\\', "/");
            if entry.path().is_dir() {
                open.push(path);
            } else if endings.iter().any(|ending| name.ends_with(ending)) {
                found.push(name);
            }
        }
    }
    found.sort();
    found
}

/// A text file of the repository; empty if it is absent.
pub fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_default()
}

/// Every Rust file under `src/`.
pub fn sources() -> Vec<Source> {
    let paths = files("src", &[".rs"]);
    let test_files = test_files(&paths);
    paths.iter().map(|path| source(path, test_files.contains(path))).collect()
}

/// Files that a `#[cfg(test)] mod name;` line names.
fn test_files(paths: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for path in paths {
        let content = text(path);
        let lines: Vec<&str> = content.lines().map(str::trim).collect();
        let folder = match path.strip_suffix("/mod.rs") {
            Some(folder) => folder.to_owned(),
            None if path == "src/lib.rs" => "src".to_owned(),
            None => path.trim_end_matches(".rs").to_owned(),
        };
        for pair in lines.windows(2) {
            let bare = pair[1].trim_start_matches("pub(crate) ").trim_start_matches("pub(super) ");
            let declared = bare.strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'));
            if let (true, Some(name)) = (pair[0].starts_with("#[cfg(test)]"), declared) {
                found.push(format!("{folder}/{name}.rs"));
                let inside = format!("{folder}/{name}/");
                found.extend(paths.iter().filter(|path| path.starts_with(&inside)).cloned());
            }
        }
    }
    found
}

fn source(path: &str, all_tests: bool) -> Source {
    let content = text(path);
    let below: Vec<&str> =
        path.trim_start_matches("src/").trim_end_matches(".rs").split('/').collect();
    let depth = if below.last() == Some(&"mod") { below.len() - 1 } else { below.len() };
    let lines: Vec<String> = content.lines().map(str::to_owned).collect();
    let end = if all_tests { 0 } else { tests_start(&lines) };
    let test_lines = lines.len() - end;
    let lines = lines[..end].to_vec();
    let code = blank(&lines.join("\n"));
    Source { path: path.to_owned(), module: below[0].to_owned(), depth, lines, code, test_lines }
}

/// Unit tests end a file: from `#[cfg(test)]` above `mod ... {` on.
fn tests_start(lines: &[String]) -> usize {
    (0..lines.len())
        .find(|&at| {
            lines[at].trim().starts_with("#[cfg(test)]")
                && lines[at + 1..]
                    .iter()
                    .map(|line| line.trim())
                    .find(|line| !line.starts_with("#["))
                    .is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
        })
        .unwrap_or(lines.len())
}

/// The same text, comments and the insides of literals replaced by blanks; line breaks stay.
pub fn blank(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = bytes.to_vec();
    let mut at = 0;
    while at < bytes.len() {
        let end = token_end(bytes, at);
        match end {
            Some(end) => {
                for byte in &mut out[at..end] {
                    if *byte != b'\n' {
                        *byte = b' ';
                    }
                }
                at = end;
            }
            None => at += 1,
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Where the comment or literal that begins at `at` ends, if one begins there.
fn token_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let word_before = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'_');
    if rest.starts_with(b"//") {
        return Some(at + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        return Some(block_comment_end(bytes, at));
    }
    if rest[0] == b'r' && !word_before {
        let hashes = rest[1..].iter().take_while(|byte| **byte == b'#').count();
        if rest.get(1 + hashes) == Some(&b'"') {
            let close: Vec<u8> = [b"\"".as_slice(), &vec![b'#'; hashes]].concat();
            let body = 2 + hashes;
            let length = rest[body..].windows(close.len()).position(|part| part == close)?;
            return Some(at + body + length + close.len());
        }
    }
    if rest[0] == b'"' {
        return Some(quoted_end(bytes, at, b'"'));
    }
    // A quote opens a character unless it opens a lifetime.
    if rest[0] == b'\'' && (rest.get(1) == Some(&b'\\') || character_closes(rest)) {
        return Some(quoted_end(bytes, at, b'\''));
    }
    None
}

fn character_closes(rest: &[u8]) -> bool {
    (2..=5).find(|&at| rest.get(at) == Some(&b'\'')).is_some_and(|end| {
        core::str::from_utf8(&rest[1..end]).is_ok_and(|inside| inside.chars().count() == 1)
    })
}

fn quoted_end(bytes: &[u8], at: usize, quote: u8) -> usize {
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] != quote {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    (end + 1).min(bytes.len())
}

fn block_comment_end(bytes: &[u8], at: usize) -> usize {
    let (mut end, mut depth) = (at + 2, 1);
    while end < bytes.len() && depth > 0 {
        if bytes[end..].starts_with(b"/*") {
            depth += 1;
            end += 2;
        } else if bytes[end..].starts_with(b"*/") {
            depth -= 1;
            end += 2;
        } else {
            end += 1;
        }
    }
    end
}

#[test]
fn blanking_hides_comments_and_literals_and_nothing_else() {
    let text = "use a::b; // c::d\nlet s = \"e::f // \\\" \"; let c = 'x'; \
                fn g<'a>(h: &'a i::J) {}\n/* k /* l */ m */ r#\"n\"# o";
    let code = blank(text);
    for kept in ["use a::b;", "let s =", "fn g<'a>(h: &'a i::J) {}", " o"] {
        assert!(code.contains(kept), "{kept} is missing in {code}");
    }
    for hidden in ["c::d", "e::f", "'x'", "k", "m", "\"n"] {
        assert!(!code.contains(hidden), "{hidden} is still in {code}");
    }
    assert_eq!(code.lines().count(), text.lines().count());
}
