//! Makers' shapes of secrets: a table, and the classes of bytes that it is written in.

/// One maker's shape.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) prefix: &'static str,
    pub(super) alphabet: u16,
    /// Shortest rest after the prefix. Shorter than the makers' tokens are, for a token may have been cut.
    pub(super) least: usize,
    pub(super) needs: Needs,
}

/// What else must hold, so that names in programs and prose stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Needs {
    /// Only the length.
    Length,
    /// Digits or inner capitals.
    Random,
    /// [`Needs::Random`], and a word must begin here.
    RandomWord,
    /// An id in capitals and digits of exactly this length, or a long one with a digit.
    Capitals(usize),
}

const fn shape(prefix: &'static str, alphabet: u16, least: usize, needs: Needs) -> Shape {
    Shape { prefix, alphabet, least, needs }
}

pub(super) const LOWER: u16 = 1;
pub(super) const UPPER: u16 = 2;
pub(super) const DIGIT: u16 = 4;
pub(super) const UNDERSCORE: u16 = 8;
pub(super) const DASH: u16 = 16;
pub(super) const DOT: u16 = 32;
pub(super) const REST: u16 = 64;
pub(super) const COLON: u16 = 128;
pub(super) const DOLLAR: u16 = 256;
pub(super) const AT: u16 = 512;
pub(super) const TILDE: u16 = 1024;
pub(super) const COMMA: u16 = 2048;

pub(super) const ALNUM: u16 = LOWER | UPPER | DIGIT;
pub(super) const CAPITAL: u16 = UPPER | DIGIT;
pub(super) const NAME: u16 = ALNUM | UNDERSCORE;
pub(super) const URL_SAFE: u16 = NAME | DASH;
pub(super) const DOTTED: u16 = URL_SAFE | DOT;
pub(super) const SLASHED: u16 = DOTTED | REST;

const fn classes() -> [u16; 256] {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        table[byte] = match byte as u8 {
            b'a'..=b'z' => LOWER,
            b'A'..=b'Z' => UPPER,
            b'0'..=b'9' => DIGIT,
            b'_' => UNDERSCORE,
            b'-' => DASH,
            b'.' => DOT,
            b'/' | b'+' | b'=' | b'%' => REST,
            b':' => COLON,
            b'$' => DOLLAR,
            b'@' => AT,
            b'~' => TILDE,
            b',' => COMMA,
            _ => 0,
        };
        byte += 1;
    }
    table
}

pub(super) static CLASSES: [u16; 256] = classes();

use Needs::{Capitals, Length, Random, RandomWord};

/// The makers' shapes, from their own documentation of token formats; lengths are lower bounds after a cut.
pub(super) const SHAPES: &[Shape] = &[
    // Hugging Face
    shape("hf_", ALNUM, 8, RandomWord),
    shape("api_org_", ALNUM, 8, Random),
    // OpenAI in the wide form, Anthropic, and those who copied it
    shape("sk-", URL_SAFE, 14, RandomWord),
    shape("sk-ant-", URL_SAFE, 8, Random),
    shape("sk-proj-", URL_SAFE, 8, Random),
    shape("sk-svcacct-", URL_SAFE, 8, Random),
    shape("sk-admin-", URL_SAFE, 8, Random),
    shape("sk-or-v1-", URL_SAFE, 8, Random),
    shape("sess-", ALNUM, 30, Random),
    // GitHub
    shape("ghp_", NAME, 8, Random),
    shape("gho_", NAME, 8, Random),
    shape("ghu_", NAME, 8, Random),
    shape("ghr_", NAME, 8, Random),
    shape("ghs_", DOTTED, 8, Random),
    shape("github_pat_", NAME, 8, Random),
    // AWS ids
    shape("AKIA", CAPITAL, 12, Capitals(16)),
    shape("ASIA", CAPITAL, 12, Capitals(16)),
    shape("ABIA", CAPITAL, 12, Capitals(16)),
    shape("ACCA", CAPITAL, 12, Capitals(16)),
    shape("AROA", CAPITAL, 12, Capitals(17)),
    shape("AIDA", CAPITAL, 12, Capitals(17)),
    shape("ABSK", SLASHED, 40, Random),
    // Google
    shape("AIza", URL_SAFE, 16, RandomWord),
    shape("ya29.", DOTTED, 12, Random),
    shape("GOCSPX-", URL_SAFE, 8, Length),
    shape("1//0", URL_SAFE, 20, RandomWord),
    // GitLab
    shape("glpat-", DOTTED, 8, Length),
    shape("gldt-", DOTTED, 8, Random),
    shape("glrt-", DOTTED, 8, Random),
    shape("glrtr-", DOTTED, 8, Random),
    shape("glptt-", DOTTED, 8, Random),
    shape("glft-", DOTTED, 8, Random),
    shape("glcbt-", DOTTED, 8, Random),
    shape("glsoat-", DOTTED, 8, Random),
    shape("gloas-", DOTTED, 8, Random),
    shape("glimt-", DOTTED, 8, Random),
    shape("glagent-", DOTTED, 8, Random),
    shape("glffct-", DOTTED, 8, Random),
    shape("glwt-", DOTTED, 8, Random),
    shape("GR1348941", URL_SAFE, 16, Length),
    // Slack
    shape("xoxa-", SLASHED, 10, Length),
    shape("xoxb-", SLASHED, 10, Length),
    shape("xoxc-", SLASHED, 10, Length),
    shape("xoxd-", SLASHED, 10, Length),
    shape("xoxe-", SLASHED, 10, Length),
    shape("xoxe.", SLASHED, 8, Random),
    shape("xoxo-", SLASHED, 10, Length),
    shape("xoxp-", SLASHED, 10, Length),
    shape("xoxr-", SLASHED, 10, Length),
    shape("xoxs-", SLASHED, 10, Length),
    shape("xapp-", SLASHED, 10, Random),
    shape("hooks.slack.com/", SLASHED, 16, Random),
    shape("discord.com/api/webhooks/", SLASHED, 16, Random),
    shape("discordapp.com/api/webhooks/", SLASHED, 16, Random),
    shape("api.telegram.org/bot", URL_SAFE | COLON, 16, Random),
    // Stripe
    shape("sk_live_", ALNUM, 8, Random),
    shape("sk_test_", ALNUM, 8, Random),
    shape("rk_live_", ALNUM, 8, Random),
    shape("rk_test_", ALNUM, 8, Random),
    shape("whsec_", SLASHED, 12, Random),
    // package registries
    shape("npm_", ALNUM, 10, Random),
    shape("pypi-", URL_SAFE, 16, Random),
    shape("rubygems_", ALNUM, 16, Random),
    shape("oy2", ALNUM, 43, RandomWord),
    shape("cio", ALNUM, 32, RandomWord),
    // others that stand in the same configuration files
    shape("SG.", DOTTED, 20, RandomWord),
    shape("dckr_pat_", URL_SAFE, 8, Random),
    shape("dckr_oat_", URL_SAFE, 8, Random),
    shape("shpat_", ALNUM, 16, Random),
    shape("shpca_", ALNUM, 16, Random),
    shape("shppa_", ALNUM, 16, Random),
    shape("shpss_", ALNUM, 16, Random),
    shape("dop_v1_", ALNUM, 16, Random),
    shape("doo_v1_", ALNUM, 16, Random),
    shape("dor_v1_", ALNUM, 16, Random),
    shape("lin_api_", ALNUM, 16, Random),
    shape("lin_oauth_", ALNUM, 16, Random),
    shape("gsk_", ALNUM, 16, RandomWord),
    shape("xai-", ALNUM, 16, RandomWord),
    shape("pplx-", ALNUM, 16, RandomWord),
    shape("r8_", ALNUM, 16, RandomWord),
    shape("nvapi-", URL_SAFE, 16, Random),
    shape("csk-", ALNUM, 16, RandomWord),
    shape("tskey-", URL_SAFE, 12, Random),
    shape("dapi", ALNUM | DASH, 32, RandomWord),
    shape("glsa_", NAME, 16, Random),
    shape("glc_", SLASHED, 24, RandomWord),
    shape("ops_eyJ", SLASHED, 16, Random),
    shape("hvs.", URL_SAFE, 16, RandomWord),
    shape("hvb.", URL_SAFE, 16, RandomWord),
    shape("hvr.", URL_SAFE, 16, RandomWord),
    shape("ATATT3", SLASHED, 24, Random),
    shape("ATCTT3", SLASHED, 24, Random),
    shape("ATBB", SLASHED, 24, RandomWord),
    shape("ntn_", ALNUM, 24, RandomWord),
    shape("secret_", ALNUM, 32, RandomWord),
    shape("figd_", URL_SAFE, 16, Random),
    shape("sbp_", ALNUM, 24, RandomWord),
    shape("pscale_tkn_", SLASHED, 16, Random),
    shape("pscale_pw_", SLASHED, 16, Random),
    shape("pscale_oauth_", SLASHED, 16, Random),
    shape("sntrys_", SLASHED, 20, Random),
    shape("sntryu_", ALNUM, 20, Random),
    shape("NRAK-", ALNUM, 16, RandomWord),
    shape("PMAK-", URL_SAFE, 20, Random),
    shape("CFPAT-", URL_SAFE, 16, Random),
    shape("sq0atp-", URL_SAFE, 12, Random),
    shape("sq0csp-", URL_SAFE, 12, Random),
    shape("LTAI", ALNUM, 12, RandomWord),
    shape("AKID", ALNUM, 24, RandomWord),
    shape("AGE-SECRET-KEY-1", ALNUM, 16, Random),
    shape("phx_", ALNUM, 24, RandomWord),
    shape("key-", ALNUM, 32, RandomWord),
    shape("pat-eu1-", URL_SAFE, 20, Random),
    shape("EAACEdEose0cBA", ALNUM, 8, Length),
    shape("EAAA", URL_SAFE, 48, RandomWord),
    shape("EAA", ALNUM, 80, RandomWord),
    shape("pul-", ALNUM, 40, RandomWord),
    shape("dt0c01.", DOTTED, 24, Random),
    shape("dt0s01.", DOTTED, 24, Random),
    shape("dp.pt.", ALNUM, 32, Random),
    shape("dp.st.", DOTTED, 32, Random),
    shape("fo1_", URL_SAFE, 32, RandomWord),
    shape("fm1_", SLASHED, 32, RandomWord),
    shape("fm2_", SLASHED, 32, RandomWord),
    shape("pnu_", ALNUM, 30, RandomWord),
    shape("rdme_", ALNUM, 40, RandomWord),
    shape("EZAK", ALNUM, 48, RandomWord),
    shape("EZTK", ALNUM, 48, RandomWord),
    shape("FLWSECK", URL_SAFE, 24, Random),
    shape("fio-u-", URL_SAFE, 40, Random),
    shape("live_", URL_SAFE, 32, RandomWord),
    shape("AKCp", ALNUM, 48, RandomWord),
    shape("CLOJARS_", ALNUM, 40, Random),
    shape("duffel_test_", URL_SAFE, 24, Random),
    shape("duffel_live_", URL_SAFE, 24, Random),
    shape("HRKU-", URL_SAFE, 32, Random),
    shape("tgp_v1_", URL_SAFE, 24, Random),
    shape("lsv2_pt_", NAME, 24, Random),
    shape("lsv2_sk_", NAME, 24, Random),
    shape("API-", CAPITAL, 26, Capitals(26)),
    shape("shippo_live_", ALNUM, 24, Random),
    shape("shippo_test_", ALNUM, 24, Random),
    shape("tfp_", URL_SAFE, 40, RandomWord),
    shape("AQVN", URL_SAFE, 32, RandomWord),
    shape("s-s4t2ud-", ALNUM, 40, Random),
    shape("u-s4t2ud-", ALNUM, 40, Random),
    shape("squ_", ALNUM, 40, RandomWord),
    shape("sqp_", ALNUM, 40, RandomWord),
    shape("sqa_", ALNUM, 40, RandomWord),
    shape("perm:", SLASHED, 40, RandomWord),
    shape("wandb_v1_", ALNUM, 40, Random),
    shape("eyJhbGci", DOTTED, 24, RandomWord),
    shape("eyJrIjoi", SLASHED, 24, RandomWord),
    // clouds
    shape("amzn.mws.", URL_SAFE, 20, Random),
    shape("bedrock-api-key-", SLASHED, 20, Random),
    shape("IQoJb3JpZ2lu", SLASHED, 16, Random),
    shape("FwoGZXIvYXdz", SLASHED, 16, Random),
    shape("AQoDYXdz", SLASHED, 16, Random),
    shape("v1.0-", URL_SAFE, 100, RandomWord),
    shape("t1.", DOTTED, 60, RandomWord),
    shape("tk-us-", URL_SAFE, 40, RandomWord),
    shape("sha256~", URL_SAFE, 40, RandomWord),
    shape("p8e-", ALNUM, 30, RandomWord),
    // models and their tools
    shape("sk_", ALNUM, 32, RandomWord),
    shape("pcsk_", NAME, 32, RandomWord),
    shape("pa-", URL_SAFE, 40, RandomWord),
    shape("fw_", ALNUM, 22, RandomWord),
    shape("cck_", URL_SAFE, 24, RandomWord),
    // databases, hosts, builds
    shape("sb_secret_", URL_SAFE, 20, Random),
    shape("npg_", ALNUM, 12, RandomWord),
    shape("napi_", ALNUM, 40, RandomWord),
    shape("nfp_", ALNUM, 30, RandomWord),
    shape("rnd_", ALNUM, 24, RandomWord),
    shape("CCIPAT_", NAME, 24, Random),
    shape("CCIPRJ_", NAME, 24, Random),
    shape("bkua_", ALNUM, 32, RandomWord),
    shape("cmVmdGtu", ALNUM, 40, RandomWord),
    shape("sgp_", NAME, 32, RandomWord),
    shape("dnkey-", URL_SAFE, 40, Random),
    shape("ico-", ALNUM, 30, RandomWord),
    shape("pat.", DOTTED, 60, RandomWord),
    shape("sat.", DOTTED, 60, RandomWord),
    shape("A3-", CAPITAL | DASH, 30, RandomWord),
    shape("NRII-", URL_SAFE, 24, RandomWord),
    shape("NRJS-", ALNUM, 16, RandomWord),
    shape("NRRA-", ALNUM, 32, RandomWord),
    // mail, payment, talk
    shape("xkeysib-", URL_SAFE, 40, Random),
    shape("access_token$production$", ALNUM | DOLLAR, 24, Random),
    shape("access_token$sandbox$", ALNUM | DOLLAR, 24, Random),
    shape("access-sandbox-", URL_SAFE, 30, Random),
    shape("access-production-", URL_SAFE, 30, Random),
    shape("access-development-", URL_SAFE, 30, Random),
    shape("aio_", ALNUM, 26, RandomWord),
    shape("ATTA", ALNUM, 60, RandomWord),
    shape("sl.", URL_SAFE, 100, RandomWord),
    shape("webhook.office.com/", SLASHED | AT, 40, Random),
    shape("hooks.zapier.com/hooks/", SLASHED, 14, Random),
    // what else announces itself
    shape("secret-token:", SLASHED, 16, Random),
    shape("apify_api_", ALNUM, 20, Random),
    shape("AVNS_", URL_SAFE, 14, Random),
    shape("bce-v3/ALTAK-", SLASHED, 20, Random),
    shape("AKLT", ALNUM, 36, RandomWord),
    shape("CCDB1_", NAME, 20, RandomWord),
    shape("dp.ct.", ALNUM, 32, Random),
    shape("dp.scim.", ALNUM, 32, Random),
    shape("dp.audit.", ALNUM, 32, Random),
    shape("dp.sa.", ALNUM, 32, Random),
    shape("endr+", URL_SAFE, 16, RandomWord),
    shape("essu_", SLASHED, 30, RandomWord),
    shape("fc-", ALNUM, 32, RandomWord),
    shape("AQ.", URL_SAFE, 40, RandomWord),
    shape("jina_", NAME, 40, RandomWord),
    shape("mlsn.", ALNUM, 40, RandomWord),
    shape("ovsxat_", URL_SAFE, 30, Random),
    shape("ovsxp_", URL_SAFE, 30, Random),
    shape("pdl_live_apikey_", NAME, 16, Random),
    shape("pdl_sdbx_apikey_", NAME, 16, Random),
    shape("polar_oat_", ALNUM, 30, Random),
    shape("polar_pat_", ALNUM, 30, Random),
    shape("rpa_", ALNUM, 30, RandomWord),
    shape("shptka_", ALNUM, 16, Random),
    shape("slk_", ALNUM, 40, RandomWord),
    shape("tvly-", URL_SAFE, 20, Random),
    shape("vcp_", ALNUM, 24, RandomWord),
    shape("vci_", ALNUM, 24, RandomWord),
    shape("vca_", ALNUM, 24, RandomWord),
    shape("vcr_", ALNUM, 24, RandomWord),
    shape("vck_", ALNUM, 24, RandomWord),
    shape("waka_", URL_SAFE, 30, RandomWord),
    shape("zpka_", NAME, 30, RandomWord),
    shape("ncp_iam_", ALNUM, 20, Random),
    shape("e2b_", ALNUM, 36, RandomWord),
    shape("APP_USR-", URL_SAFE, 24, Random),
    shape("vtwn_", NAME, 20, RandomWord),
    shape("lip_", ALNUM, 18, RandomWord),
    shape("sindri_", URL_SAFE, 24, RandomWord),
    shape("mdb_sa_sk_", URL_SAFE, 24, Random),
    shape("rootly_", ALNUM, 40, RandomWord),
    shape("IGQV", URL_SAFE, 60, RandomWord),
    shape("KEY0", NAME, 44, RandomWord),
    shape("sk_car_", ALNUM, 16, Random),
    shape("sk_prod_", ALNUM, 16, Random),
    shape("pat-na", URL_SAFE, 24, RandomWord),
    shape("cal_live_", ALNUM, 24, RandomWord),
    shape("nfc_", ALNUM, 30, RandomWord),
    shape("nfo_", ALNUM, 30, RandomWord),
    shape("nfu_", ALNUM, 30, RandomWord),
    shape("nfb_", ALNUM, 30, RandomWord),
    // hashes of passwords
    shape("$8$", ALNUM | DOT | DOLLAR | REST, 40, Random),
    shape("$9$", ALNUM | DOT | DOLLAR | REST, 40, Random),
    shape("$7$", ALNUM | DOT | DOLLAR | REST, 40, Random),
    shape("$apr1$", ALNUM | DOT | DOLLAR | REST, 24, Random),
    shape("$2a$", ALNUM | DOT | DOLLAR | REST, 40, Random),
    shape("$2b$", ALNUM | DOT | DOLLAR | REST, 40, Random),
    shape("$2y$", ALNUM | DOT | DOLLAR | REST, 40, Random),
    shape("$1$", ALNUM | DOT | DOLLAR | REST, 24, Random),
    shape("$5$", ALNUM | DOT | DOLLAR | REST, 40, Random),
    shape("$6$", ALNUM | DOT | DOLLAR | REST, 60, Random),
    shape("$y$", ALNUM | DOT | DOLLAR | REST, 40, Random),
    shape("$argon2", NAME | DOT | DOLLAR | REST | COMMA, 40, Random),
    shape("{SHA}", SLASHED, 26, Random),
    shape("{SSHA}", SLASHED, 26, Random),
];
