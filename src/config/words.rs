//! Values that are words.

/// Values that are words: each type lists them in the order of its variants.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            pub(crate) const WORDS: &'static [&'static str] = &[$($word,)+];
            pub(crate) const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The word in the configuration.
            #[must_use]
            pub fn word(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }
        }
    };
}
