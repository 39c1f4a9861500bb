//! From the text of an `acl.conf` to rules. The forms are those of EMQ X 3; the final dot of a rule may be missing.

use core::net::IpAddr;

use newtmq_mqtt::TopicFilter;

use super::lex::{At, Lexer, Token, shortened};
use super::{Acl, Level, Net, Pattern, Permission, Rule, Subject, Topics};

/// Most rules of a file. Each check may look at all of them.
pub const RULES_MAX: usize = 10_000;
/// Most topics and parts of conditions in all rules together.
const ITEMS_MAX: usize = 100_000;
/// Deepest nesting of `'and'` and `'or'`.
const NESTING_MAX: usize = 16;

/// What is wrong with an `acl.conf`, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}:{column}: {message}")]
pub struct AclError {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// What is wrong, and what would be right.
    pub message: String,
}

pub(super) fn parse(text: &str) -> Result<Acl, AclError> {
    let mut parser = Parser::new(text)?;
    let mut rules = Vec::new();
    while parser.token != Token::End {
        let at = parser.at;
        if rules.len() == RULES_MAX {
            return Err(at.error(format!("there are more than {RULES_MAX} rules")));
        }
        rules.push(parser.rule()?);
        parser.end_of_rule()?;
    }
    Ok(Acl { rules: rules.into() })
}

struct Parser<'a> {
    lexer: Lexer<'a>,
    /// The token that is looked at, and where it begins.
    token: Token,
    at: At,
    /// Of lists, so far.
    items: usize,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Parser<'a>, AclError> {
        let mut lexer = Lexer::new(text);
        let (token, at) = lexer.next()?;
        Ok(Parser { lexer, token, at, items: 0 })
    }

    /// The token that is looked at, and where it was; the next one takes its place.
    fn take(&mut self) -> Result<(Token, At), AclError> {
        let (token, at) = self.lexer.next()?;
        Ok((core::mem::replace(&mut self.token, token), core::mem::replace(&mut self.at, at)))
    }

    fn is(&self, mark: char) -> bool {
        self.token == Token::Mark(mark)
    }

    /// Takes this mark, or says that `what` was expected.
    fn expect(&mut self, mark: char, what: &str) -> Result<(), AclError> {
        if !self.is(mark) {
            return Err(self.at.error(format!("{what} is expected here, not {}", self.token.name())));
        }
        self.take().map(drop)
    }

    fn atom(&mut self, what: &str) -> Result<(String, At), AclError> {
        match self.take()? {
            (Token::Atom(atom), at) => Ok((atom, at)),
            (token @ (Token::Mark(_) | Token::Text(_) | Token::End), at) => {
                Err(at.error(format!("{what} is expected here, not {}", token.name())))
            }
        }
    }

    /// A dot, or what begins the next rule.
    fn end_of_rule(&mut self) -> Result<(), AclError> {
        if self.is('{') || self.token == Token::End {
            return Ok(());
        }
        self.expect('.', "`.` after the rule")
    }

    fn rule(&mut self) -> Result<Rule, AclError> {
        self.expect('{', "a rule, which begins with `{`,")?;
        let (word, at) = self.atom("allow or deny")?;
        let permission = match word.as_str() {
            "allow" => Permission::Allow,
            "deny" => Permission::Deny,
            _ => return Err(at.error(format!("a rule begins with allow or deny, not `{}`", shortened(&word)))),
        };
        self.expect(',', "`,` and whom the rule is about")?;
        let who = self.subject(0)?;
        if self.is('}') && who == Subject::All {
            self.take()?;
            return Ok(Rule { permission, publish: true, subscribe: true, who, topics: Topics::Any });
        }
        self.expect(',', "`,` and one of publish, subscribe, pubsub")?;
        let (word, at) = self.atom("publish, subscribe or pubsub")?;
        let (publish, subscribe) = match word.as_str() {
            "publish" => (true, false),
            "subscribe" => (false, true),
            "pubsub" => (true, true),
            _ => {
                let found = shortened(&word);
                return Err(at.error(format!("`{found}` is none of publish, subscribe, pubsub")));
            }
        };
        self.expect(',', "`,` and the topics")?;
        let topics = Topics::Listed(self.topics()?);
        self.expect('}', "`}` at the end of the rule")?;
        Ok(Rule { permission, publish, subscribe, who, topics })
    }

    fn subject(&mut self, depth: usize) -> Result<Subject, AclError> {
        let (token, at) = self.take()?;
        match token {
            Token::Atom(atom) if atom == "all" => return Ok(Subject::All),
            Token::Mark('{') if depth < NESTING_MAX => {}
            Token::Mark('{') => return Err(at.error(format!("nested deeper than {NESTING_MAX}"))),
            Token::Atom(_) | Token::Text(_) | Token::Mark(_) | Token::End => {
                let found = token.name();
                return Err(at.error(format!(
                    "whom the rule is about is all or a pair such as {{user, \"name\"}}, not {found}"
                )));
            }
        }
        let (kind, at) = self.atom("user, client, ipaddr, 'and' or 'or'")?;
        self.expect(',', "`,`")?;
        let subject = match kind.as_str() {
            "user" => self.name()?.map_or(Subject::All, Subject::User),
            "client" => self.name()?.map_or(Subject::All, Subject::Client),
            "ipaddr" => Subject::Net(self.net()?),
            "and" => Subject::And(self.list(|parser| parser.subject(depth + 1))?),
            "or" => Subject::Or(self.list(|parser| parser.subject(depth + 1))?),
            _ => {
                let found = shortened(&kind);
                return Err(at.error(format!("`{found}` is none of user, client, ipaddr, 'and', 'or'")));
            }
        };
        self.expect('}', "`}`")?;
        Ok(subject)
    }

    /// A name, or nothing for `all`.
    fn name(&mut self) -> Result<Option<Box<str>>, AclError> {
        match self.take()? {
            (Token::Atom(atom), _) if atom == "all" => Ok(None),
            (Token::Text(text), _) => Ok(Some(text.into())),
            (token @ (Token::Atom(_) | Token::Mark(_) | Token::End), at) => {
                Err(at.error(format!("a name in double quotes or all is expected here, not {}", token.name())))
            }
        }
    }

    fn net(&mut self) -> Result<Net, AclError> {
        match self.take()? {
            (Token::Text(text), at) => net(&text).ok_or_else(|| {
                let found = shortened(&text);
                at.error(format!("\"{found}\" is no address such as \"192.168.0.1\", \"10.0.0.0/8\" or \"fd00::/8\""))
            }),
            (token @ (Token::Atom(_) | Token::Mark(_) | Token::End), at) => {
                Err(at.error(format!("an address in double quotes is expected here, not {}", token.name())))
            }
        }
    }

    /// A list; a single topic may stand without brackets.
    fn topics(&mut self) -> Result<Box<[Pattern]>, AclError> {
        match self.token {
            Token::Text(_) => Ok(Box::new([self.topic()?])),
            Token::Mark(_) | Token::Atom(_) | Token::End => self.list(Parser::topic),
        }
    }

    fn topic(&mut self) -> Result<Pattern, AclError> {
        if !self.is('{') {
            let (text, at) = self.text("a topic in double quotes or {eq, \"topic\"}")?;
            return pattern(&text, at);
        }
        self.take()?;
        let (word, at) = self.atom("eq")?;
        if word != "eq" {
            return Err(at.error(format!("a topic is \"topic\" or {{eq, \"topic\"}}; `{}` is no eq", shortened(&word))));
        }
        self.expect(',', "`,`")?;
        let (text, at) = self.text("a topic in double quotes")?;
        check_filter(&text, at)?;
        self.expect('}', "`}`")?;
        Ok(Pattern::Exact(text.into()))
    }

    fn text(&mut self, what: &str) -> Result<(String, At), AclError> {
        match self.take()? {
            (Token::Text(text), at) => Ok((text, at)),
            (token @ (Token::Atom(_) | Token::Mark(_) | Token::End), at) => {
                Err(at.error(format!("{what} is expected here, not {}", token.name())))
            }
        }
    }

    /// `[…]`, perhaps empty.
    fn list<T>(&mut self, mut item: impl FnMut(&mut Self) -> Result<T, AclError>) -> Result<Box<[T]>, AclError> {
        self.expect('[', "a list, which begins with `[`,")?;
        let mut items = Vec::new();
        if self.is(']') {
            self.take()?;
            return Ok(items.into());
        }
        loop {
            if self.items == ITEMS_MAX {
                return Err(self.at.error(format!("the rules have more than {ITEMS_MAX} topics and conditions")));
            }
            self.items += 1;
            items.push(item(self)?);
            if self.is(']') {
                self.take()?;
                return Ok(items.into());
            }
            self.expect(',', "`,` or `]`")?;
        }
    }
}

/// `ADDRESS` or `ADDRESS/BITS`. Bits of the address behind the prefix do not count.
fn net(text: &str) -> Option<Net> {
    let (address, bits) = match text.split_once('/') {
        Some((address, bits)) if bits.bytes().all(|digit| digit.is_ascii_digit()) => {
            (address, Some(bits.parse().ok()?))
        }
        Some(_) => return None,
        None => (text, None),
    };
    let (v4, address, width) = match address.parse().ok()? {
        IpAddr::V4(ip) => (true, u128::from(ip.to_bits()), 32),
        IpAddr::V6(ip) => (false, ip.to_bits(), 128),
    };
    let bits: u32 = bits.unwrap_or(width);
    if bits > width {
        return None;
    }
    let all = u128::MAX >> (128 - width);
    let mask = all & !all.checked_shr(bits).unwrap_or(0);
    Some(Net { v4, network: address & mask, mask })
}

fn check_filter(text: &str, at: At) -> Result<(), AclError> {
    match TopicFilter::new(text) {
        Ok(filter) if filter.share_group().is_none() => Ok(()),
        Ok(_) => {
            Err(at.error("a shared subscription is checked by the filter behind its group; write that filter here"))
        }
        Err(error) => Err(at.error(format!("\"{}\" is no topic filter: {error}", shortened(text)))),
    }
}

fn pattern(text: &str, at: At) -> Result<Pattern, AclError> {
    check_filter(text, at)?;
    let mut literal = String::new();
    let mut rest = Vec::new();
    for word in text.split('/') {
        let level = level(word, at)?;
        if let (true, Level::Literal(word)) = (rest.is_empty(), &level) {
            literal.push_str(word);
            literal.push('/');
        } else {
            rest.push(level);
        }
    }
    if rest.is_empty() {
        return Ok(Pattern::Exact(text.into()));
    }
    Ok(Pattern::Levels { literal: literal.into(), rest: rest.into() })
}

/// Rules that let everybody do what is listed, and nothing else.
pub(super) fn only(publish: &[&str], subscribe: &[&str]) -> Result<Acl, AclError> {
    let at = At { line: 1, column: 1 };
    if publish.len() + subscribe.len() > ITEMS_MAX {
        return Err(at.error(format!("the lists have more than {ITEMS_MAX} topics")));
    }
    let patterns = |topics: &[&str]| topics.iter().map(|topic| pattern(topic, at)).collect::<Result<Box<[_]>, _>>();
    let allow = |topics: Box<[Pattern]>, publish: bool| Rule {
        permission: Permission::Allow,
        publish,
        subscribe: !publish,
        who: Subject::All,
        topics: Topics::Listed(topics),
    };
    let deny =
        Rule { permission: Permission::Deny, publish: true, subscribe: true, who: Subject::All, topics: Topics::Any };
    Ok(Acl { rules: Box::new([allow(patterns(publish)?, true), allow(patterns(subscribe)?, false), deny]) })
}

fn level(word: &str, at: At) -> Result<Level, AclError> {
    Ok(match word {
        "+" => Level::One,
        "#" => Level::Rest,
        "%u" => Level::Username,
        "%c" => Level::Client,
        _ if word.contains("%u") || word.contains("%c") => {
            let found = shortened(word);
            // Such a rule would silently never fit.
            return Err(at.error(format!("%u and %c stand for a whole level, not for a part of `{found}`")));
        }
        _ => Level::Literal(word.into()),
    })
}
