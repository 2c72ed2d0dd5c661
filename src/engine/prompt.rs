//! From a request's JSON to tokens and ways: every rule of the API is checked here, and nowhere after.

use super::json::Object;
use super::model::Vocabulary;
use super::sample::Sampler;
use super::slot::Token;
use super::template::{Piece, Template};
use super::text::{Holdback, STOP_BYTES_MAX, STOPS_MAX};
use super::trim;
use crate::chat::wire::{Content, ErrorBody, Message, Request};

/// OpenAI's default.
const TEMPERATURE: f32 = 1.0;
/// OpenAI's upper bound.
const TEMPERATURE_MAX: f32 = 2.0;

/// Makes prompts for one model.
pub struct Prompts {
    vocabulary: Vocabulary,
    template: Template,
    context: usize,
    token_bytes_max: usize,
    start: Option<Token>,
}

/// What a request asks of the batch.
#[derive(Debug)]
pub struct Prompt {
    /// The conversation: not empty, with room for a reply in the context.
    pub tokens: Vec<Token>,
    /// Most tokens to generate.
    pub tokens_max: usize,
    /// How they are drawn.
    pub sampler: Sampler,
    /// Set when the reply has to be a JSON object.
    pub object: Option<Object>,
    /// Stop texts.
    pub text: Holdback,
}

impl Prompts {
    /// For the model of `vocabulary`, with `context` tokens a conversation.
    ///
    /// # Errors
    /// A sentence: the model has no chat template, or one that is not understood.
    pub fn new(vocabulary: Vocabulary, context: usize) -> Result<Prompts, String> {
        let template = Template::new(vocabulary.template()?, vocabulary.control_texts(), vocabulary.borders())?;
        let (token_bytes_max, start) = (vocabulary.token_bytes_max(), vocabulary.required_start());
        Ok(Prompts { vocabulary, template, context, token_bytes_max, start })
    }

    /// Checks a request and makes its prompt.
    ///
    /// # Errors
    /// The body of a 400, which names the field and the rule.
    pub fn prepare(&self, request: &Request) -> Result<Prompt, ErrorBody> {
        let sampler = sampler(request)?;
        let text = Holdback::new(stops(request)?);
        let object = object(request)?;
        if request.n.is_some_and(|n| n != 1) {
            return Err(wrong("n", "one answer at a time: n must be 1"));
        }
        let limit = match request.tokens_max() {
            Some(0) => return Err(wrong("max_tokens", "max_tokens must be at least 1")),
            Some(tokens) => tokens as usize,
            None => usize::MAX,
        };
        let tokens = match request.chatcorn_trim {
            true => self.tokens(&self.trimmed(request, limit))?,
            false => self.tokens(&request.messages)?,
        };
        let tokens_max = limit.min(self.context - tokens.len());
        Ok(Prompt { tokens, tokens_max, sampler, object, text })
    }

    /// Without the oldest turns that do not fit beside a reply of `limit` tokens, or of half the context.
    fn trimmed(&self, request: &Request, limit: usize) -> Vec<Message> {
        let messages = &request.messages;
        let (turns, room) = (trim::turns(messages), self.context - limit.min(self.context / 2));
        let without =
            |out: usize| -> Vec<Message> { [&messages[..turns.start], &messages[turns.start + out..]].concat() };
        let bytes: Vec<usize> = messages[turns.clone()].iter().map(|message| message.text().len()).collect();
        // What cannot be rendered is refused later, with its reason.
        let count = |out: usize| {
            let rendered = self.template.render(&without(out), random().unwrap_or_default());
            rendered.map_or(0, |pieces| self.tokenise(&pieces).len())
        };
        without(trim::left_out(&bytes, room, count))
    }

    fn tokens(&self, messages: &[Message]) -> Result<Vec<Token>, ErrorBody> {
        check_messages(messages)?;
        let bytes: usize = messages.iter().map(|message| message.text().len()).sum();
        if bytes / self.token_bytes_max >= self.context {
            return Err(self.too_long(bytes / self.token_bytes_max));
        }
        let nonce = random().ok_or_else(|| ErrorBody::new("server_error", "internal_error", "Try again."))?;
        let pieces = self.template.render(messages, nonce).map_err(|reason| wrong("messages", &reason))?;
        let tokens = self.tokenise(&pieces);
        match tokens.len() {
            0 => Err(wrong("messages", "the model's chat template makes nothing of these messages")),
            length if length >= self.context => Err(self.too_long(length)),
            _ => Ok(tokens),
        }
    }

    fn tokenise(&self, pieces: &[Piece]) -> Vec<Token> {
        let each = pieces.iter().flat_map(|piece| match piece {
            Piece::Trusted(text) => self.vocabulary.tokens(text, true),
            Piece::Literal(text) => self.vocabulary.tokens(text, false),
        });
        let mut tokens: Vec<Token> = each.collect();
        if let Some(start) = self.start.filter(|start| tokens.first() != Some(start)) {
            tokens.insert(0, start);
        }
        tokens
    }

    fn too_long(&self, length: usize) -> ErrorBody {
        let message = format!(
            "The conversation has at least {length} tokens and the model's context holds {}, reply included: \
             send fewer or shorter messages.",
            self.context
        );
        let mut body = ErrorBody::new("invalid_request_error", "context_length_exceeded", message);
        body.error.param = Some("messages".into());
        body
    }
}

fn check_messages(messages: &[Message]) -> Result<(), ErrorBody> {
    if messages.is_empty() {
        return Err(wrong("messages", "messages must have at least one message"));
    }
    let parts = messages.iter().filter_map(|message| match &message.content {
        Some(Content::Parts(parts)) => Some(parts),
        _ => None,
    });
    match parts.flatten().find(|part| part.kind != "text") {
        Some(_) => Err(wrong("messages", "this model reads text only: every part must be of type text")),
        None => Ok(()),
    }
}

fn sampler(request: &Request) -> Result<Sampler, ErrorBody> {
    let temperature = request.temperature.unwrap_or(TEMPERATURE);
    if !(0.0..=TEMPERATURE_MAX).contains(&temperature) {
        return Err(wrong("temperature", "temperature must be from 0 to 2"));
    }
    let top_p = request.top_p.unwrap_or(1.0);
    if !(top_p > 0.0 && top_p <= 1.0) {
        return Err(wrong("top_p", "top_p must be over 0 and at most 1"));
    }
    let seed = request.seed.map(|seed| seed as u64).or_else(|| random().map(|random| random as u64));
    Ok(Sampler::new(temperature, top_p, seed.unwrap_or_default()))
}

fn object(request: &Request) -> Result<Option<Object>, ErrorBody> {
    match request.response_format.as_ref().map(|format| format.kind.as_str()) {
        None | Some("text") => Ok(None),
        Some("json_object") => Ok(Some(Object::default())),
        Some(_) => Err(wrong("response_format", "response_format must be of type text or json_object")),
    }
}

fn stops(request: &Request) -> Result<Vec<String>, ErrorBody> {
    let stops = request.stop.as_ref().map_or(&[][..], |stop| stop.texts());
    if stops.len() > STOPS_MAX {
        return Err(wrong("stop", "at most 4 stop texts"));
    }
    if stops.iter().any(|stop| stop.is_empty() || stop.len() > STOP_BYTES_MAX) {
        return Err(wrong("stop", "a stop text must have 1 to 256 bytes"));
    }
    Ok(stops.to_vec())
}

fn wrong(param: &str, message: &str) -> ErrorBody {
    let mut body = ErrorBody::new("invalid_request_error", "invalid_request", message);
    body.error.param = Some(param.to_owned());
    body
}

/// 128 bits from the kernel; `None` when it has none, which it never says after boot.
pub(super) fn random() -> Option<u128> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).ok().map(|()| u128::from_ne_bytes(bytes))
}
