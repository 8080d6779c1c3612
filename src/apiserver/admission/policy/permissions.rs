//! What expressions ask the authorizer. Expressions do not wait, so an answer that is not known yet ends the
//! evaluation; it is looked up, and the evaluation begins anew.

use api::Failure;
use cel::{Authorizer, AuthorizerResource, Decided, What};
use parking_lot::Mutex;

use crate::authz::{Action, Attributes, Selector};
use crate::identity::Identity;
use crate::server::ApiServer;

/// Questions that one evaluation may come up with, one after the other.
const ROUNDS_MAX: usize = 64;

#[derive(Clone, PartialEq, Eq)]
struct Question {
    account: Option<(String, String)>,
    what: What,
    verb: String,
}

/// One request's questions and their answers; the same question is asked once.
pub struct Permissions<'a> {
    user: &'a Identity,
    known: Mutex<Vec<(Question, Decided)>>,
    wanted: Mutex<Vec<Question>>,
}

impl<'a> Permissions<'a> {
    pub fn new(user: &'a Identity) -> Permissions<'a> {
        Permissions { user, known: Mutex::new(Vec::new()), wanted: Mutex::new(Vec::new()) }
    }

    /// Evaluates until no answer is missing.
    pub async fn settle<T>(&self, server: &ApiServer, mut evaluate: impl FnMut() -> T) -> Result<T, Failure> {
        for _ in 0..ROUNDS_MAX {
            let result = evaluate();
            let wanted = std::mem::take(&mut *self.wanted.lock());
            if wanted.is_empty() {
                return Ok(result);
            }
            for question in wanted {
                let decided = self.decide(server, &question).await;
                self.known.lock().push((question, decided));
            }
        }
        Err(Failure::internal("an admission policy asks for too many permissions"))
    }

    async fn decide(&self, server: &ApiServer, question: &Question) -> Decided {
        let account = question.account.as_ref().map(|(namespace, name)| Identity::service_account(namespace, name));
        let user = account.as_ref().unwrap_or(self.user);
        let verb = question.verb.as_str();
        let attributes = match &question.what {
            What::Path(path) => Attributes::from(Action::Path { verb, path }),
            What::Resource(asked) => {
                let AuthorizerResource { group, resource, subresource, namespace, name, .. } = asked;
                let action = Action::Resource { verb, group, resource, subresource, namespace, name };
                Attributes {
                    fields: Selector::of(&asked.field_selector),
                    labels: Selector::of(&asked.label_selector),
                    ..action.into()
                }
            }
            What::Nothing | What::Group(_) => return Decided::default(),
        };
        let decision = server.authorizer().decide(user, &attributes).await;
        Decided { allowed: decision.is_allowed(), reason: decision.reason().to_owned(), error: None }
    }
}

impl Authorizer for Permissions<'_> {
    fn check(&self, service_account: Option<(&str, &str)>, what: &What, verb: &str) -> Decided {
        let account = service_account.map(|(namespace, name)| (namespace.to_owned(), name.to_owned()));
        let question = Question { account, what: what.clone(), verb: verb.to_owned() };
        if let Some((_, decided)) = self.known.lock().iter().find(|(known, _)| *known == question) {
            return decided.clone();
        }
        self.wanted.lock().push(question);
        Decided { error: Some("not decided yet".to_owned()), ..Decided::default() }
    }
}
