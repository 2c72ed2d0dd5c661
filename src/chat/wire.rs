//! The OpenAI chat JSON: what the engine answers, what the upstream client sends and reads, what `/v1` speaks.
//!
//! Source of the field names: the OpenAI API reference, "Create chat completion", "The chat completion object" and
//! "The chat completion chunk object". Unknown fields are ignored on the way in.

use serde::{Deserialize, Serialize};

/// The body of `POST /v1/chat/completions`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Request {
    /// Model asked for; a server with one model ignores it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// The conversation, oldest first.
    pub messages: Vec<Message>,
    /// True: an event stream of [`Chunk`]s.
    pub stream: bool,
    /// Asks for usage in a stream.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stream_options: Option<StreamOptions>,
    /// Most tokens to generate (the older name).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<u32>,
    /// Most tokens to generate (the newer name, which wins).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_completion_tokens: Option<u32>,
    /// 0 is greedy; up to 2.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f32>,
    /// Nucleus sampling, over 0 up to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f32>,
    /// Same seed, same answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Texts that end the generation and are not part of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop: Option<Stop>,
    /// What the reply has to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response_format: Option<Format>,
    /// Answers asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n: Option<u32>,
    /// Our own engine's word, which `/api/chat` gives it: leave out the oldest turns that do not fit its context.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub chatcorn_trim: bool,
}

impl Request {
    /// Most tokens to generate, whichever name it came under.
    pub fn tokens_max(&self) -> Option<u32> {
        self.max_completion_tokens.or(self.max_tokens)
    }

    /// True when a stream shall end with a usage chunk.
    pub fn wants_usage(&self) -> bool {
        self.stream_options.as_ref().is_some_and(|options| options.include_usage)
    }
}

/// Options of a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StreamOptions {
    /// One more chunk at the end, without choices, with the usage.
    pub include_usage: bool,
}

/// What a reply has to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Format {
    /// `text`, `json_object` or `json_schema`.
    #[serde(rename = "type")]
    pub kind: String,
}

/// One text or up to four.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Stop {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Stop {
    /// All of them.
    pub fn texts(&self) -> &[String] {
        match self {
            Stop::One(text) => std::slice::from_ref(text),
            Stop::Many(texts) => texts,
        }
    }
}

/// Who speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions (also sent as `developer`).
    #[serde(alias = "developer")]
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
    /// A tool's result.
    Tool,
}

impl Role {
    /// As chat templates know it.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
            Role::Tool => "tool",
        }
    }
}

/// One message of a conversation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who.
    pub role: Role,
    /// What; absent in a reply that is only reasoning or tool calls.
    #[serde(default)]
    pub content: Option<Content>,
    /// A reasoning model's own thoughts, where the server returns them.
    #[serde(default, alias = "reasoning", skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
}

impl Message {
    /// A message of plain text.
    pub fn new(role: Role, text: impl Into<String>) -> Message {
        Message { role, content: Some(Content::Text(text.into())), reasoning_content: None }
    }

    /// Its text; the text parts of a message in parts, one after the other.
    pub fn text(&self) -> String {
        match &self.content {
            None => String::new(),
            Some(Content::Text(text)) => text.clone(),
            Some(Content::Parts(parts)) => parts.iter().filter_map(|part| part.text.as_deref()).collect(),
        }
    }
}

/// A message's content: text, or typed parts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Content {
    /// Plain text.
    Text(String),
    /// Parts, of which we know text.
    Parts(Vec<Part>),
}

/// One part of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// `text`, or a kind that the server may not know.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text of a `text` part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<String>,
}

/// Tokens of one completion.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens of the conversation.
    pub prompt_tokens: u64,
    /// Tokens generated.
    pub completion_tokens: u64,
    /// Both.
    pub total_tokens: u64,
    /// How much of the prompt was not evaluated again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_tokens_details: Option<PromptDetails>,
}

/// Details of the prompt's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct PromptDetails {
    /// Tokens taken from the prefix cache.
    pub cached_tokens: u64,
}

/// An answer in one piece.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Completion {
    /// `chatcmpl-…`.
    #[serde(default)]
    pub id: String,
    /// `chat.completion`.
    #[serde(default)]
    pub object: String,
    /// Epoch seconds.
    #[serde(default)]
    pub created: u64,
    /// The model that answered.
    #[serde(default)]
    pub model: String,
    /// One for each answer asked for.
    pub choices: Vec<Choice>,
    /// Absent where a server does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// One answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Choice {
    /// From 0.
    #[serde(default)]
    pub index: u32,
    /// The reply.
    pub message: Message,
    /// `stop`, `length`, …
    #[serde(default)]
    pub finish_reason: Option<String>,
}

/// One event of a streamed answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Chunk {
    /// The same in all chunks of an answer.
    #[serde(default)]
    pub id: String,
    /// `chat.completion.chunk`.
    #[serde(default)]
    pub object: String,
    /// Epoch seconds.
    #[serde(default)]
    pub created: u64,
    /// The model that answers.
    #[serde(default)]
    pub model: String,
    /// Empty in the usage chunk.
    #[serde(default)]
    pub choices: Vec<ChunkChoice>,
    /// In the last chunk, when asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
}

/// What one chunk adds to one answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ChunkChoice {
    /// From 0.
    #[serde(default)]
    pub index: u32,
    /// The addition.
    #[serde(default)]
    pub delta: Delta,
    /// Set in the last chunk of an answer.
    #[serde(default)]
    pub finish_reason: Option<String>,
}

/// A piece of a reply.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Delta {
    /// In the first piece.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// Text to append.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// Reasoning to append.
    #[serde(alias = "reasoning", skip_serializing_if = "Option::is_none")]
    pub reasoning_content: Option<String>,
}

/// The models of a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Models {
    /// `list`.
    #[serde(default)]
    pub object: String,
    /// One entry a model.
    pub data: Vec<Model>,
}

impl Models {
    /// The list that holds one model.
    pub fn one(id: &str, created: u64) -> Models {
        let model = Model { id: id.into(), object: "model".into(), created, owned_by: "chatcorn".into() };
        Models { object: "list".into(), data: vec![model] }
    }
}

/// One model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// Its name, as requests give it.
    pub id: String,
    /// `model`.
    #[serde(default)]
    pub object: String,
    /// Epoch seconds.
    #[serde(default)]
    pub created: u64,
    /// Who offers it.
    #[serde(default)]
    pub owned_by: String,
}

/// An error as OpenAI's API tells it, in a body of its own or as an event of a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// The one member.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorDetail {
    /// A sentence that says what to do.
    pub message: String,
    /// `invalid_request_error`, `rate_limit_error`, `server_error`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The field at fault.
    pub param: Option<String>,
    /// A stable name, as in `API.md`.
    pub code: Option<String>,
}

impl ErrorBody {
    /// An error with its kind and code.
    pub fn new(kind: &str, code: &str, message: impl Into<String>) -> ErrorBody {
        let detail = ErrorDetail { message: message.into(), kind: kind.into(), param: None, code: Some(code.into()) };
        ErrorBody { error: detail }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_comes_as_text_or_in_parts() {
        let json = r#"{"messages":[{"role":"developer","content":"be brief"},
            {"role":"user","content":[{"type":"text","text":"a"},{"type":"image_url","image_url":{}},{"type":"text","text":"b"}]}],
            "max_tokens":5,"stop":"END","unknown":1}"#;
        let request: Request = serde_json::from_str(json).unwrap();
        assert_eq!(request.messages[0], Message::new(Role::System, "be brief"));
        assert_eq!(request.messages[1].text(), "ab");
        assert_eq!((request.tokens_max(), request.stream), (Some(5), false));
        assert_eq!(request.stop.unwrap().texts(), ["END"]);
    }

    #[test]
    fn the_newer_name_of_a_limit_wins() {
        let request: Request = serde_json::from_str(r#"{"max_tokens":5,"max_completion_tokens":7}"#).unwrap();
        assert_eq!(request.tokens_max(), Some(7));
    }

    #[test]
    fn a_sparse_chunk_of_another_server_is_read() {
        let chunk: Chunk = serde_json::from_str(r#"{"choices":[{"delta":{"content":"hi"}}]}"#).unwrap();
        assert_eq!(chunk.choices[0].delta.content.as_deref(), Some("hi"));
        let usage: Chunk = serde_json::from_str(
            r#"{"choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}"#,
        )
        .unwrap();
        assert_eq!(usage.usage.map(|usage| usage.total_tokens), Some(3));
    }
}
