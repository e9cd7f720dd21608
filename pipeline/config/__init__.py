"""The config: its keys, defaults and checks (sections), how it is read and shown (load), and how secrets are masked."""

from pipeline.config.load import describe as describe
from pipeline.config.load import load as load
from pipeline.config.load import parse_setting as parse_setting
from pipeline.config.load import public_settings as public_settings
from pipeline.config.masking import Secrets as Secrets
from pipeline.config.masking import Uri as Uri
from pipeline.config.masking import cut_options as cut_options
from pipeline.config.masking import is_web as is_web
from pipeline.config.masking import mask_uri as mask_uri
from pipeline.config.masking import mask_url as mask_url
from pipeline.config.masking import mask_words as mask_words
from pipeline.config.masking import origin as origin
from pipeline.config.masking import split_uri as split_uri
from pipeline.config.sections import EMBEDDED as EMBEDDED
from pipeline.config.sections import PIPE as PIPE
from pipeline.config.sections import Config as Config
from pipeline.config.sections import Loader as Loader
from pipeline.config.sections import Request as Request
from pipeline.config.sections import Retry as Retry
from pipeline.config.sections import Run as Run
from pipeline.config.sections import Server as Server
from pipeline.config.sections import Writer as Writer
from pipeline.config.sections import dated as dated
from pipeline.config.sections import days_of as days_of
from pipeline.config.sections import is_dated as is_dated
