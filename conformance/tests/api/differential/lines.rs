//! A step as a line of etcdctl, where etcdctl can say it.

use conformance::client::{field, find_method, number, parse};
use prost_reflect::{DynamicMessage, Value};

use super::program::{Step, USERS, WatchAction};

/// The line; a comment with the request where etcdctl has no word for it.
pub fn etcdctl(step: &Step) -> String {
    let (who, line) = match step {
        Step::Call { who, method, request } => {
            (*who, command(method, &parse(find_method(method).input(), request)))
        }
        Step::Watch { who, action: WatchAction::Create(request), .. } => {
            let create =
                parse(find_method("Watch/Watch").input(), &format!("create_request{{{request}}}"));
            let create = field(&create, "create_request");
            let create = create.as_message().expect("a create request");
            (*who, watch(create))
        }
        Step::KeepAlive { who, leases } => {
            let each = leases.iter().map(|id| format!("etcdctl lease keep-alive --once {id:x}"));
            (*who, Some(each.collect::<Vec<_>>().join("; ")))
        }
        _ => (None, None),
    };
    match (line, who) {
        (None, _) => format!("# {step}"),
        (Some(line), None) => line,
        (Some(line), Some(user)) => {
            line.replace("etcdctl ", &format!("etcdctl --user={0}:{0} ", USERS[user]))
        }
    }
}

fn command(method: &str, request: &DynamicMessage) -> Option<String> {
    let words = match method {
        "KV/Put" => put(request),
        "KV/DeleteRange" => {
            format!("del {}{}", interval(request), flag(request, "prev_kv", " --prev-kv"))
        }
        "KV/Range" => range(request)?,
        "KV/Txn" => return txn(request),
        "KV/Compact" => format!("compact {}", number(request, "revision")),
        "Lease/LeaseGrant" if number(request, "ID") == 0 => {
            format!("lease grant {}", number(request, "TTL"))
        }
        "Lease/LeaseRevoke" => format!("lease revoke {:x}", number(request, "ID")),
        "Lease/LeaseTimeToLive" => {
            let keys = flag(request, "keys", " --keys");
            format!("lease timetolive {:x}{keys}", number(request, "ID"))
        }
        "Lease/LeaseLeases" => "lease list".to_owned(),
        "Auth/AuthEnable" => "auth enable".to_owned(),
        "Auth/AuthDisable" => "auth disable".to_owned(),
        "Auth/AuthStatus" => "auth status".to_owned(),
        "Auth/RoleList" => "role list".to_owned(),
        "Auth/UserList" => "user list".to_owned(),
        "Auth/RoleAdd" => format!("role add {}", bytes(request, "name")),
        "Auth/RoleGet" => format!("role get {}", bytes(request, "role")),
        "Auth/RoleDelete" => format!("role delete {}", bytes(request, "role")),
        "Auth/UserAdd" => {
            format!("user add {}:{}", bytes(request, "name"), bytes(request, "password"))
        }
        "Auth/UserGet" => format!("user get {}", bytes(request, "name")),
        "Auth/UserDelete" => format!("user delete {}", bytes(request, "name")),
        "Auth/UserGrantRole" => {
            format!("user grant-role {} {}", bytes(request, "user"), bytes(request, "role"))
        }
        "Auth/UserRevokeRole" => {
            format!("user revoke-role {} {}", bytes(request, "name"), bytes(request, "role"))
        }
        _ => return None,
    };
    Some(format!("etcdctl {words}"))
}

fn put(request: &DynamicMessage) -> String {
    let lease = match number(request, "lease") {
        0 => String::new(),
        id => format!(" --lease={id:x}"),
    };
    format!(
        "put {} {}{lease}{}{}{}",
        bytes(request, "key"),
        bytes(request, "value"),
        flag(request, "prev_kv", " --prev-kv"),
        flag(request, "ignore_value", " --ignore-value"),
        flag(request, "ignore_lease", " --ignore-lease"),
    )
}

fn range(request: &DynamicMessage) -> Option<String> {
    let order = ["", " --order=ASCEND", " --order=DESCEND"];
    let order = order.get(enumeration(request, "sort_order"))?;
    let target = ["KEY", "VERSION", "CREATE", "MODIFY", "VALUE"];
    let target = match enumeration(request, "sort_target") {
        0 => String::new(),
        other => format!(" --sort-by={}", target.get(other)?),
    };
    let mut words = format!("get {}{order}{target}", interval(request));
    for (name, option) in [
        ("limit", "limit"),
        ("revision", "rev"),
        ("min_mod_revision", "min-mod-rev"),
        ("max_mod_revision", "max-mod-rev"),
        ("min_create_revision", "min-create-rev"),
        ("max_create_revision", "max-create-rev"),
    ] {
        match number(request, name) {
            0 => {}
            value => words.push_str(&format!(" --{option}={value}")),
        }
    }
    words.push_str(flag(request, "keys_only", " --keys-only"));
    words.push_str(flag(request, "count_only", " --count-only"));
    words.push_str(flag(request, "serializable", " --consistency=s"));
    Some(words)
}

/// A transaction whose compares and requests etcdctl's language has words for.
fn txn(request: &DynamicMessage) -> Option<String> {
    let list = |name: &str| -> Vec<DynamicMessage> {
        let value = field(request, name);
        let items = value.as_list().unwrap_or(&[]);
        items.iter().filter_map(|item| item.as_message().cloned()).collect()
    };
    let mut text = String::new();
    for compare in list("compare") {
        if !raw(&compare, "range_end").is_empty() {
            return None;
        }
        let (word, value) = match enumeration(&compare, "target") {
            0 => ("ver", number(&compare, "version").to_string()),
            1 => ("create", number(&compare, "create_revision").to_string()),
            2 => ("mod", number(&compare, "mod_revision").to_string()),
            3 => ("val", String::from_utf8(raw(&compare, "value")).ok()?),
            4 => ("lease", number(&compare, "lease").to_string()),
            _ => return None,
        };
        let sign = ["=", ">", "<", "!="].get(enumeration(&compare, "result"))?;
        let key = String::from_utf8(raw(&compare, "key")).ok()?;
        text.push_str(&format!("{word}({key:?}) {sign} {value:?}\n"));
    }
    for branch in ["success", "failure"] {
        text.push('\n');
        for op in list(branch) {
            text.push_str(&nested(&op)?);
            text.push('\n');
        }
    }
    text.push('\n');
    Some(format!("etcdctl txn <<'END'\n{text}END"))
}

fn nested(op: &DynamicMessage) -> Option<String> {
    for (name, method) in [
        ("request_put", "KV/Put"),
        ("request_range", "KV/Range"),
        ("request_delete_range", "KV/DeleteRange"),
    ] {
        if op.has_field_by_name(name) {
            let line = command(method, field(op, name).as_message()?)?;
            return line.strip_prefix("etcdctl ").map(str::to_owned);
        }
    }
    None
}

fn watch(create: &DynamicMessage) -> Option<String> {
    let mut words = format!("etcdctl watch {}", interval(create));
    match number(create, "start_revision") {
        0 => {}
        revision => words.push_str(&format!(" --rev={revision}")),
    }
    words.push_str(flag(create, "prev_kv", " --prev-kv"));
    words.push_str(" &");
    Some(words)
}

/// A key, and where its range ends.
fn interval(request: &DynamicMessage) -> String {
    match raw(request, "range_end") {
        end if end.is_empty() => bytes(request, "key"),
        end if end == [0] => format!("{} --from-key", bytes(request, "key")),
        _ => format!("{} {}", bytes(request, "key"), bytes(request, "range_end")),
    }
}

fn flag(request: &DynamicMessage, name: &str, word: &'static str) -> &'static str {
    if field(request, name) == Value::Bool(true) { word } else { "" }
}

fn enumeration(request: &DynamicMessage, name: &str) -> usize {
    field(request, name)
        .as_enum_number()
        .and_then(|n| usize::try_from(n).ok())
        .unwrap_or(usize::MAX)
}

fn raw(request: &DynamicMessage, name: &str) -> Vec<u8> {
    match field(request, name) {
        Value::Bytes(bytes) => bytes.to_vec(),
        Value::String(text) => text.into_bytes(),
        _ => Vec::new(),
    }
}

/// A word of the shell, whatever its bytes.
fn bytes(request: &DynamicMessage, name: &str) -> String {
    let bytes = raw(request, name);
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/_.-~".contains(byte);
    if !bytes.is_empty() && bytes.iter().all(plain) {
        return String::from_utf8(bytes).expect("ASCII");
    }
    let escaped = bytes.iter().map(|byte| match plain(byte) {
        true => char::from(*byte).to_string(),
        false => format!("\\x{byte:02x}"),
    });
    format!("$'{}'", escaped.collect::<String>())
}
