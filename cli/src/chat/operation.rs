//! What takes a word with the server. An operation runs beside the talk and comes back with what to show.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tidings_client::ChatNow;
use tidings_client::{Client, RequestError};
use tidings_protocol::{Chat, ChatId, ClientId, ErrorCode, Operation, Role, Timestamp, UserId};
use time::UtcOffset;

use crate::chat::text::{clean, time_of_day};

/// What an operation found or did.
#[derive(Debug)]
pub(crate) enum Effect {
    /// To be shown.
    Say(String),
    /// A chat as it is now.
    Note(Chat),
    /// The chat to be opened.
    Open(ChatNow),
    /// The chat to be opened, if there is one of this name.
    Find(String),
    /// The list is to be shown.
    List,
}

/// An operation under way. An error is a sentence.
pub(crate) type Running = BoxFuture<'static, Result<Vec<Effect>, String>>;

/// What to do once everything is known of the user's chats.
pub(crate) fn begin(client: Client, open: Option<Effect>, with: Option<UserId>) -> Running {
    async move {
        let chats = client.chats().await.map_err(sentence)?;
        let mut effects: Vec<Effect> = chats.into_iter().map(Effect::Note).collect();
        match (with, open) {
            (Some(user), _) => effects.extend(direct(&client, user).await?),
            (None, Some(effect)) => effects.push(effect),
            (None, None) => {}
        }
        Ok(effects)
    }
    .boxed()
}

/// Opens the direct chat with somebody.
pub(crate) fn open_direct(client: Client, user: UserId) -> Running {
    async move { direct(&client, user).await }.boxed()
}

async fn direct(client: &Client, user: UserId) -> Result<Vec<Effect>, String> {
    let created = client.direct_chat(user).await.map_err(sentence)?;
    opened(client, created.chat_id).await
}

/// Opens a chat the user is in.
pub(crate) fn open(client: Client, chat_id: ChatId) -> Running {
    async move { opened(&client, chat_id).await }.boxed()
}

async fn opened(client: &Client, chat_id: ChatId) -> Result<Vec<Effect>, String> {
    let now = client.chat(chat_id).await.map_err(sentence)?;
    Ok(vec![Effect::Note(now.chat.clone()), Effect::Open(now)])
}

/// Makes a group and opens it.
pub(crate) fn create(client: Client, name: String, users: Vec<UserId>) -> Running {
    async move {
        let created = client.create_chat(users, Some(name)).await.map_err(sentence)?;
        opened(&client, created.chat_id).await
    }
    .boxed()
}

/// Adds or removes somebody. What changed is told by the update that follows.
pub(crate) fn modify(client: Client, chat_id: ChatId, user: UserId, operation: Operation) -> Running {
    async move {
        let changed = client
            .modify(chat_id, user.clone(), operation)
            .await
            .map_err(sentence)?;
        let already = match operation {
            Operation::Add => format!("{user} is in this chat already"),
            Operation::Remove => format!("{user} is not in this chat"),
        };
        Ok(if changed.changed {
            Vec::new()
        } else {
            vec![Effect::Say(already)]
        })
    }
    .boxed()
}

/// Who is in a chat.
pub(crate) fn who(client: Client, chat_id: ChatId) -> Running {
    async move {
        let ChatNow {
            chat,
            not_yet_connected,
        } = client.chat(chat_id).await.map_err(sentence)?;
        let line = |participant: &tidings_protocol::Participant| {
            let role = if participant.role == Role::Admin {
                " (admin)"
            } else {
                ""
            };
            let absent = not_yet_connected.contains(&participant.user_id);
            let absent = if absent { ", has not connected yet" } else { "" };
            Effect::Say(format!("  {}{role}{absent}", participant.user_id))
        };
        let mut effects: Vec<Effect> = chat.participants.iter().map(line).collect();
        effects.push(Effect::Note(chat));
        Ok(effects)
    }
    .boxed()
}

/// The user's devices.
pub(crate) fn clients(client: Client, me: Option<ClientId>, now: Timestamp, offset: UtcOffset) -> Running {
    async move {
        let clients = client.clients().await.map_err(sentence)?;
        let line = |info: tidings_protocol::ClientInfo| {
            let name = clean(info.name.as_deref().unwrap_or("no name"));
            let seen = if info.online {
                "online".to_owned()
            } else {
                format!("last seen {}", time_of_day(info.last_seen, now, offset))
            };
            let here = if Some(info.client_id) == me {
                ", this one"
            } else {
                ""
            };
            Effect::Say(format!("  {name}: {seen}{here} ({})", info.client_id))
        };
        Ok(clients.into_iter().map(line).collect())
    }
    .boxed()
}

/// An error for whoever typed the command.
pub(crate) fn sentence(error: RequestError) -> String {
    let RequestError::Refused(error) = error else {
        return clean(&error.to_string());
    };
    match error.code {
        ErrorCode::NotAdmin => "only an admin of this chat can do that".to_owned(),
        ErrorCode::NotAParticipant => "you are not in this chat".to_owned(),
        ErrorCode::DirectChat => {
            "a chat of two stays a chat of two; make a group with /create NAME USER…".to_owned()
        }
        ErrorCode::ChatFull => "a chat has at most 100 people".to_owned(),
        ErrorCode::ChatClosed => "everybody has left this chat".to_owned(),
        code => format!("{} ({code})", clean(&error.message)),
    }
}
