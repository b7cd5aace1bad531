//! Whether this is a container, and how one gets what its host forbids it by default.

use std::path::Path;

/// The files by which engines mark their containers.
const MARKS: [(&str, &str); 2] = [("/run/.containerenv", "podman"), ("/.dockerenv", "docker")];

/// What kind of container this is, as far as it says so: by the variable that systemd's convention names, or by a file.
#[must_use]
pub fn kind() -> Option<String> {
    let named = std::env::var("container").ok().filter(|name| !name.is_empty());
    let in_a_pod = || std::env::var_os("KUBERNETES_SERVICE_HOST").map(|_| "kubernetes".to_owned());
    let marked = || MARKS.iter().find(|(file, _)| Path::new(file).exists()).map(|(_, name)| (*name).to_owned());
    named.or_else(in_a_pod).or_else(marked)
}

/// How such a container gets a userfaultfd, which the default rules of engines forbid to root, too.
#[must_use]
pub fn remedy(kind: &str) -> String {
    let device = "the host's /dev/userfaultfd (Linux 6.1 or newer)";
    match kind {
        "docker" | "podman" => format!(
            "this is a container of {kind}, whose default rules forbid it to root, too: give it {device}: {kind} run --device /dev/userfaultfd; \
             or let it make the call: {kind} run --security-opt seccomp=unconfined --cap-add SYS_PTRACE"
        ),
        "kubernetes" => format!(
            "this is a pod, whose default rules forbid it to root, too: give it {device} by a device plugin, or run it with \
             securityContext: {{ privileged: true }}"
        ),
        _ => format!("this is a container ({kind}): give it {device}, or let it make the call userfaultfd"),
    }
}
