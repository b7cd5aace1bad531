//! Views: a domain's tables of rights, of which each vCPU goes by one.

use super::done::{Done, operate};
use crate::scenario::MemoryAct;
use mem_event::message::{Call, Reply};
use mem_event::{AccessType, Control, VcpuId, ViewId};
use mem_event_client::socket::Client;

/// Carries an act out that is about views.
///
/// # Errors
/// The plugin refuses, or the connection ended.
pub(super) fn carry_out(act: &MemoryAct, client: &mut Client) -> anyhow::Result<Done> {
    let due = |refused: &Option<crate::scenario::Name<_>>| refused.map(|errno| errno.0);
    match act {
        MemoryAct::Views { on } => {
            let text = if *on { "the domain has views" } else { "the domain has no views" };
            operate(client, Control::SetViews { on: *on }, None, text)
        }
        MemoryAct::CreateView { view, access, refused: None } => {
            create(client, *view, access.map_or(AccessType::Rwx, |access| access.0))
        }
        MemoryAct::CreateView { access, refused, .. } => {
            let access = access.map_or(AccessType::Rwx, |access| access.0);
            operate(client, Control::CreateView { access }, due(refused), "make a view")
        }
        MemoryAct::DestroyView { view, refused } => {
            let text = format!("end view {view}");
            operate(client, Control::DestroyView { view: ViewId(*view) }, due(refused), &text)
        }
        MemoryAct::SwitchView { view, vcpu: None, refused } => {
            let text = format!("all vCPUs go by view {view}");
            operate(client, Control::SwitchView { view: ViewId(*view) }, due(refused), &text)
        }
        MemoryAct::SwitchView { view, vcpu: Some(vcpu), refused } => {
            let control = Control::SwitchVcpuView { vcpu: VcpuId(*vcpu), view: ViewId(*view) };
            operate(client, control, due(refused), &format!("vCPU {vcpu} goes by view {view}"))
        }
        _ => anyhow::bail!("an act that has nothing to do with views"),
    }
}

fn create(client: &mut Client, due: Option<u16>, access: AccessType) -> anyhow::Result<Done> {
    let text = |view: &str| format!("make view {view}, where frames are {access}");
    Ok(match client.call(&Call::Control(Control::CreateView { access }))? {
        Reply::Done([view, ..]) => {
            let failure = due.filter(|due| u64::from(*due) != view);
            let failure = failure.map(|due| format!("the view is number {view} where {due} is due"));
            Done { text: text(&view.to_string()), failure }
        }
        Reply::Refused(errno, why) => Done { text: text(""), failure: Some(format!("make a view: {errno}: {why}")) },
        other => anyhow::bail!("{other:?} is no reply to a call that makes a view"),
    })
}
